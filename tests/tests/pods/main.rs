//! Real pods, chosen by name or label, and followed as they come and go.

mod blocked;
mod chosen;
mod deadline;
mod followed;
mod kinds;
mod nested;
mod once;
mod released;
mod runtime;
mod shown;
mod struck;
mod waves;

use tests::{Node, Pod, Running, Spotsim};

const NOTICE: &str = "/latest/meta-data/spot/instance-action";
const REGION: &str = "/latest/meta-data/placement/region";

/// `spotsim attach` with the node's runtime and its IMDS, once it is armed.
fn attach(node: &Node, options: &[&str]) -> Running {
    let endpoint = node.endpoint();
    let mut args = vec![
        "attach",
        "--runtime-endpoint",
        &endpoint,
        "--upstream",
        "real",
    ];
    args.extend(options);
    let mut process = Running::start(Spotsim::command(&node.lab, &args));
    process.stdout_line("armed: ", 0);
    process
}

/// Does a pod see the notice, by a client of its own at the plain address? If not, it sees what
/// its IMDS says.
fn sees(pod: &Pod) -> bool {
    is_notice(pod.get(NOTICE).status())
}

/// Does a process of the host, in the node's namespace and outside of all pods?
fn host_sees(node: &Node) -> bool {
    let host = node.lab.place(&node.lab.node, &node.lab.beside);
    is_notice(host.get(NOTICE).status())
}

fn is_notice(status: u16) -> bool {
    match status {
        200 => true,
        404 => false,
        other => panic!("status {other}"),
    }
}

/// Who of these pods sees the notice: their names.
fn who_sees<'a>(pods: &[&'a Pod]) -> Vec<&'a str> {
    let seeing = pods.iter().filter(|pod| sees(pod));
    seeing.map(|pod| pod.name()).collect()
}
