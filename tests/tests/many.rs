//! Many targets at once: what spotsim holds for them, what they cost, and that nothing is held
//! for those that are gone.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use tests::{
    Held, Lab, Running, Sandbox, Spotsim, Via, is_release, processor_time, resident, run, say,
    wait_until,
};

const NOTICE: &str = "/latest/meta-data/spot/instance-action";

/// As many pods as a large node has.
const MANY: usize = 200;

/// What ARCHITECTURE.md promises of descriptors: so many links a target …
const LINKS: usize = 4;
/// … so many sockets a network namespace, besides one of its own: two listeners and sock_diag …
const SOCKETS: usize = 3;
/// … and at most so many others, besides those that it was started with.
const OTHERS: usize = 22;
const THREADS: usize = 4;

/// The same with so many targets and namespaces more.
fn with(held: &Held, targets: usize, namespaces: usize) -> Held {
    Held {
        links: held.links + targets * LINKS,
        namespaces: held.namespaces + namespaces,
        sockets: held.sockets + namespaces * SOCKETS,
        ..held.clone()
    }
}

fn held_by(process: &Running) -> Held {
    Held::by(process.pid()).unwrap()
}

/// What a process holds when it does not just look around, for which it opens a file or two.
fn held_at_rest(process: &Running) -> Held {
    let mut before = held_by(process);
    loop {
        sleep(Duration::from_millis(50));
        let held = held_by(process);
        if held == before {
            return held;
        }
        before = held;
    }
}

/// Waits until a process holds this.
fn holds(process: &Running, expected: &Held) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let held = held_by(process);
        if held == *expected {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{held:?}, not {expected:?}\n{}",
            process.stderr()
        );
        sleep(Duration::from_millis(10));
    }
}

/// `spotsim attach` to all of these.
fn attach_to(lab: &Lab, sandboxes: &[Sandbox]) -> Running {
    let paths: Vec<_> = sandboxes
        .iter()
        .map(|sandbox| sandbox.cgroup.path().display().to_string())
        .collect();
    let cgroups = paths.iter().flat_map(|path| ["--cgroup", path]);
    attach(lab, &cgroups.collect::<Vec<_>>())
}

fn attach(lab: &Lab, cgroups: &[&str]) -> Running {
    let options = ["attach", "--id", "many", "--upstream", "synthetic"];
    let mut spotsim = Running::start(Spotsim::command(lab, &[&options, cgroups].concat()));
    spotsim.stdout_line("armed: ", 0);
    spotsim
}

fn detach(lab: &Lab, spotsim: Running) {
    run(Spotsim::command(lab, &["detach"]), b"").expect("detach");
    spotsim.finish().expect("attach");
}

fn sees(sandbox: &Sandbox) -> bool {
    sandbox.place().get(NOTICE).status() == 200
}

#[test]
fn what_is_held_for_them_is_what_architecture_md_says() {
    let Some(lab) = Lab::bare() else { return };
    let sandboxes = lab.sandboxes(&lab.target, MANY);

    let spotsim = attach_to(&lab, &sandboxes[..1]);
    // Its own namespace, and the target's; while it looks, one more.
    let one = wait_until("what is held for one", || {
        let held = held_at_rest(&spotsim);
        (held.namespaces == 2).then_some(held)
    });
    assert_eq!((one.links, one.threads), (LINKS, THREADS));
    // Another process of the same place has what it was started with, and no more.
    let inherited = held_by(&lab.daemon_place().sleeper()).descriptors();
    let others = one.descriptors() - inherited - LINKS - 1 - SOCKETS;
    assert!(others <= OTHERS, "{one:?}, and {inherited} inherited");
    detach(&lab, spotsim);

    let spotsim = attach_to(&lab, &sandboxes);
    holds(&spotsim, &with(&one, MANY - 1, MANY - 1));
    assert!(sandboxes.iter().all(sees));
    holds(&spotsim, &with(&one, MANY - 1, MANY - 1));
    detach(&lab, spotsim);

    // One above them all.
    let above = lab.target.path().display().to_string();
    let spotsim = attach(&lab, &["--cgroup", &above]);
    holds(&spotsim, &with(&one, 0, MANY - 1));
    assert!(sandboxes.iter().all(sees));
    detach(&lab, spotsim);
    assert!(!sees_at_all(&sandboxes[0]), "no way leads from there");
}

/// Whether anything at all answers there.
fn sees_at_all(sandbox: &Sandbox) -> bool {
    let request = tests::get(NOTICE);
    sandbox.place().try_send(Via::V4, &request).code == 0
}

/// Ends some of the targets while they are attached, by their processes' end and by their
/// cgroups'.
#[test]
fn nothing_is_held_for_those_that_are_gone() {
    let Some(lab) = Lab::bare() else { return };
    const GONE: usize = 50;
    for above in [false, true] {
        let mut sandboxes = lab.sandboxes(&lab.target, MANY);
        let name = |index: usize| format!("wire{index}");
        for (index, sandbox) in sandboxes.iter().enumerate().take(GONE) {
            sandbox.wire(&lab.node, &name(index));
        }
        let mut spotsim = if above {
            attach(
                &lab,
                &["--cgroup", &lab.target.path().display().to_string()],
            )
        } else {
            attach_to(&lab, &sandboxes)
        };
        let all = held_at_rest(&spotsim);
        sandboxes.drain(..GONE);
        // What of it the kernel still has shows on the node.
        let wires = || lab.node.ip("-o link").matches("wire").count();
        wait_until("the namespaces' end", || (wires() == 0).then_some(()));
        let links = if above { 0 } else { GONE };
        let left = Held {
            links: all.links - links * LINKS,
            namespaces: all.namespaces - GONE,
            sockets: all.sockets - GONE * SOCKETS,
            ..all.clone()
        };
        holds(&spotsim, &left);
        assert!(sandboxes.iter().all(sees), "the others go on");

        // All others too, and with them spotsim: there is nothing left to attach to.
        if !above {
            drop(sandboxes);
            let reason = spotsim.stderr_line("detached: ", 0);
            assert!(reason.ends_with("no target is left"), "{reason}");
            assert_eq!(spotsim.finish().code, 0);
        }
    }
}

/// The thread that makes the sockets for what is passed on was there, and must not stay.
#[test]
fn a_namespace_from_which_requests_were_passed_can_end() {
    let Some(lab) = Lab::bare() else { return };
    let mut sandboxes = lab.sandboxes(&lab.target, 2);
    sandboxes[0].wire(&lab.node, "wire");
    let nobody = ["--id", "many", "--upstream", "http://127.0.0.1:9"];
    let cgroups = sandboxes.iter().map(|sandbox| sandbox.cgroup.directory());
    let cgroups = cgroups.flat_map(|directory| ["--cgroup", directory.to_str().unwrap()]);
    let args: Vec<_> = ["attach"]
        .into_iter()
        .chain(nobody)
        .chain(cgroups)
        .collect();
    let mut spotsim = Running::start(Spotsim::command(&lab, &args));
    spotsim.stdout_line("armed: ", 0);

    // So often that sockets are made before they are needed, which must not stay either.
    let sockets = |spotsim: &Running| Held::by(spotsim.pid()).unwrap().sockets;
    let before = sockets(&spotsim);
    wait_until("spare sockets", || {
        for _ in 0..6 {
            let passed = sandboxes[0].place().try_send(Via::V4, &tests::get("/"));
            assert!(passed.stderr.contains("reset"), "{}", passed.stderr);
        }
        (sockets(&spotsim) > before).then_some(())
    });
    spotsim.stderr_line("no answer, the upstream cannot be reached", 0);

    sandboxes.remove(0);
    wait_until("the namespace's end", || {
        (!lab.node.ip("-o link").contains("wire")).then_some(())
    });
    assert!(!spotsim.has_ended());
}

/// What a process costs while nothing happens.
struct Cost {
    /// Megabytes.
    resident: f64,
    /// Percent of a processor.
    busy: f64,
}

fn idle(process: &Running) -> Cost {
    const FOR: Duration = Duration::from_secs(4);
    // What came with the arming is over.
    sleep(Duration::from_secs(1));
    let before = processor_time(process.pid());
    sleep(FOR);
    let busy = (processor_time(process.pid()) - before).as_secs_f64();
    Cost {
        resident: resident(process.pid()) as f64 / 1_000_000.0,
        busy: busy / FOR.as_secs_f64() * 100.0,
    }
}

#[test]
fn they_are_attached_and_detached_soon_and_cost_little() {
    if !is_release() {
        return;
    }
    let Some(lab) = Lab::bare() else { return };
    let sandboxes = lab.sandboxes(&lab.target, MANY);

    // What else the machine does can only add to it.
    let round = || {
        let started = Instant::now();
        let spotsim = attach_to(&lab, &sandboxes);
        let armed = started.elapsed();
        let cost = idle(&spotsim);
        let started = Instant::now();
        detach(&lab, spotsim);
        (armed, started.elapsed(), cost)
    };
    let rounds = [0; 3].map(|_| round());
    let armed = rounds.iter().map(|(armed, ..)| *armed).min().unwrap();
    let detached = rounds
        .iter()
        .map(|(_, detached, _)| *detached)
        .min()
        .unwrap();
    let costs = || rounds.iter().map(|(.., cost)| cost);
    let resident = costs().map(|cost| cost.resident).fold(0.0, f64::max);
    let busy = costs().map(|cost| cost.busy).fold(100.0, f64::min);
    say(&format!(
        "{MANY} targets: armed in {} ms (limit 1000), detached in {} ms (limit 1000), best \
         of 3; {resident:.1} MB resident (limit 30), {busy:.1}% of a processor when idle (limit 5)",
        armed.as_millis(),
        detached.as_millis()
    ));
    assert!(armed < Duration::from_secs(1));
    assert!(detached < Duration::from_secs(1));
    assert!(resident < 30.0);
    assert!(busy < 5.0);
}
