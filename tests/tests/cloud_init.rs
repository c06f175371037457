//! Debian's cloud-init walks the whole synthetic instance, by its listings, with a notice in it.

use serde_json::Value;
use tests::{Lab, Spotsim, cloud_init_crawl, run, say};

#[test]
fn cloud_init_crawls_the_synthetic_instance() {
    let Some(lab) = Lab::new() else { return };
    let Some(crawl) = cloud_init_crawl() else {
        return;
    };
    let _workload = lab.workload_process();
    let spotsim = Spotsim::attach_to(&lab, &lab.target, &["--upstream", "synthetic"]);

    let finished = run(lab.inside().command_line(crawl), b"");
    let printed: Value = serde_json::from_str(&finished.expect("cloud-init")).unwrap();
    assert_eq!(
        printed["complaints"],
        Value::from(Vec::<Value>::new()),
        "{}",
        spotsim.stderr()
    );
    let crawled = &printed["crawled"];
    let meta = &crawled["meta-data"];
    assert_eq!(meta["instance-id"], "i-0123456789abcdef0", "{crawled}");
    assert_eq!(meta["placement"]["region"], "us-east-1");
    assert_eq!(meta["tags"]["instance"]["Name"], "spotsim");
    assert_eq!(meta["iam"]["info"]["Code"], "Success");
    // As cloud-init reads the listing `0=spotsim-key`.
    let key = meta["public-keys"]["spotsim-key"][0].as_str();
    assert!(key.unwrap().starts_with("ssh-ed25519 "), "{meta}");
    let mac = meta["mac"].as_str().unwrap();
    let interface = &meta["network"]["interfaces"]["macs"][mac];
    assert_eq!(interface["owner-id"], "123456789012");
    let public = meta["public-ipv4"].as_str().unwrap();
    assert_eq!(interface["ipv4-associations"][public], meta["local-ipv4"]);
    let document = &crawled["dynamic"]["instance-identity"]["document"];
    assert_eq!(document["instanceId"], meta["instance-id"]);
    let user_data = crawled["user-data"].as_str().unwrap();
    assert!(user_data.starts_with("#cloud-config\n"), "{user_data}");

    let notice = &meta["spot"]["instance-action"];
    assert_eq!(notice["action"], spotsim.armed.action.as_str(), "{meta}");
    assert_eq!(notice["time"], spotsim.armed.deadline.as_str());
    say(&format!("cloud-init: {notice}"));
}
