//! The rules of the service itself, where nothing is announced.

use super::case::{
    Case, Group, Service, allowing, ask, forbidden, get, issued, not_found, put, refused, text,
    unauthorized,
};

const TOKEN: &str = "/latest/api/token";
const ID: &str = "/latest/meta-data/instance-id";
const IS_ID: &str = "i-0123456789abcdef0";

/// The names in the recording's `meta-data/`.
pub const TOP: [&str; 12] = [
    "ami-id",
    "block-device-mapping/",
    "events/",
    "iam/",
    "instance-action",
    "instance-id",
    "instance-life-cycle",
    "instance-type",
    "placement/",
    "public-keys/",
    "system",
    "tags/",
];

pub fn groups() -> Vec<Group> {
    let mut rules = tokens();
    rules.extend(authorisation());
    rules.extend(paths());
    rules.extend(methods());
    vec![
        Group::new("nothing announced", &[], rules),
        Group::new("tokens required", &[], tokens_required()).of(Service::V2),
        Group::new("switched off", &[], switched_off()).of(Service::Off),
    ]
}

/// `PUT /latest/api/token`, and what is not quite that.
fn tokens() -> Vec<Case> {
    let mut cases = vec![
        put(TOKEN).ttl("1").is(issued(1)),
        put(TOKEN).ttl("60").is(issued(60)),
        put(TOKEN).ttl("21600").is(issued(21_600)),
        put(TOKEN)
            .with("x-AWS-ec2-METADATA-token-ttl-SECONDS: 60")
            .is(issued(60)),
        put(TOKEN)
            .ttl("60")
            .with("Content-Length: 0")
            .is(issued(60)),
        put(TOKEN).is(refused("400 Bad Request")),
        put(TOKEN).ttl("60").forwarded().is(forbidden()),
        put(TOKEN).forwarded().is(forbidden()),
        put("/latest/api/token/").ttl("60").is(forbidden()),
        put("/2021-03-23/api/token").ttl("60").is(forbidden()),
        put("/1.0/api/token").ttl("60").is(forbidden()),
        ask("OPTIONS", TOKEN).is(allowing("200 OK", "OPTIONS, PUT")),
        get("/latest/api").is(not_found()),
    ];
    for ttl in ["0", "21601", "99999999999999999999", "-1", "abc", "1.5", ""] {
        cases.push(put(TOKEN).ttl(ttl).is(refused("400 Bad Request")));
    }
    for method in ["GET", "HEAD", "POST", "DELETE"] {
        let answer = allowing("405 Not Allowed", "OPTIONS, PUT");
        cases.push(ask(method, TOKEN).is(answer));
    }
    cases
}

/// Which requests are taken.
fn authorisation() -> Vec<Case> {
    let id = || text(IS_ID);
    vec![
        get(ID).is(id()),
        get(ID).forwarded().is(id()),
        get(ID).token("{good}").is(id().left()),
        get(ID)
            .with("x-AWS-ec2-METADATA-token: {good}")
            .is(id().left()),
        ask("HEAD", ID).is(id()),
        ask("HEAD", ID).token("{good}").is(id().left()),
        get(ID).token("{expired}").is(unauthorized()),
        get(ID).token("nonsense").is(unauthorized()),
        get(ID).token("").is(unauthorized()),
        ask("HEAD", ID).token("nonsense").is(unauthorized()),
        get(ID).token("{expired}").token("{good}").is(id().left()),
        get(ID).token("{good}").token("{expired}").is(id().left()),
        get(ID).token("{expired}").token("x").is(unauthorized()),
        get(ID).token("{good}").forwarded().is(forbidden()),
        get("/latest/meta-data/nothing").is(not_found()),
        get("/latest/meta-data/nothing")
            .token("{good}")
            .is(not_found().left()),
        get("/latest/meta-data/nothing")
            .token("nonsense")
            .is(unauthorized()),
        get("/latest/meta-data/")
            .token("{good}")
            .is(text(&TOP.join("\n")).left()),
    ]
}

/// What is where, however it is written.
fn paths() -> Vec<Case> {
    const VERSIONS: &str = "1.0\n2007-01-19\n2007-03-01\n2007-08-29\n2007-10-10\n2007-12-15\n\
        2008-02-01\n2008-09-01\n2009-04-04\n2011-01-01\n2011-05-01\n2012-01-12\n2014-02-25\n\
        2014-11-05\n2015-10-20\n2016-04-19\n2016-06-30\n2016-09-02\n2018-03-28\n2018-08-17\n\
        2018-09-24\n2019-10-01\n2020-10-27\n2021-01-03\n2021-03-23\n2021-07-15\n2022-09-24\n\
        2024-04-11\nlatest";
    const DOCUMENT: &str = "{\n  \"accountId\" : \"123456789012\",\n  \"region\" : \"us-east-1\",\n  \
        \"version\" : \"2017-09-30\"\n}";
    const KEY: &str = "ssh-rsa AAAAB3NzaC1yc2E recorded-key\n";
    let below = "/latest/meta-data";
    let mut cases = Vec::new();
    for (path, body) in [
        ("/".to_owned(), VERSIONS),
        ("//".to_owned(), VERSIONS),
        ("/latest".to_owned(), "dynamic\nmeta-data\nuser-data"),
        ("/latest/".to_owned(), "dynamic\nmeta-data\nuser-data"),
        ("/2021-07-15/".to_owned(), "dynamic\nmeta-data\nuser-data"),
        (format!("{below}/placement/region"), "us-east-1"),
        (
            format!("{below}/placement/availability-zone/"),
            "us-east-1a",
        ),
        (format!("/{below}//placement///region"), "us-east-1"),
        ("/1.0/meta-data/instance-id".to_owned(), IS_ID),
        ("/2009-04-04/meta-data/instance-id".to_owned(), IS_ID),
        ("/2021-07-15/meta-data/instance-id".to_owned(), IS_ID),
        // Documented, though it is not in the list.
        ("/2016-11-15/meta-data/instance-id".to_owned(), IS_ID),
        (format!("{below}/instance-id?a=b"), IS_ID),
        (format!("{below}/instance-life-cycle"), "on-demand"),
        (format!("{below}/instance-action"), "none"),
        (
            format!("{below}/placement"),
            "availability-zone\navailability-zone-id\nregion",
        ),
        (
            format!("{below}/placement/"),
            "availability-zone\navailability-zone-id\nregion",
        ),
        (format!("{below}/events/"), "maintenance/"),
        (format!("{below}/events/maintenance/"), "history\nscheduled"),
        (format!("{below}/events/maintenance/scheduled"), "[]"),
        (format!("{below}/events/maintenance/history"), "[]"),
        (format!("{below}/public-keys/"), "0=recorded-key"),
        (format!("{below}/public-keys/0/"), "openssh-key"),
        (format!("{below}/public-keys/0/openssh-key"), KEY),
        (format!("{below}/tags/instance"), "Name"),
        (format!("{below}/tags/instance/Name"), "recorded"),
        ("/latest/dynamic/".to_owned(), "instance-identity/"),
        (
            "/latest/dynamic/instance-identity/document".to_owned(),
            DOCUMENT,
        ),
    ] {
        cases.push(get(&path).is(text(body)));
        cases.push(ask("HEAD", &path).is(text(body)));
    }
    for path in [below.to_owned(), format!("{below}/"), format!("/{below}//")] {
        cases.push(get(&path).is(text(&TOP.join("\n"))));
    }
    for path in [
        "/newest/meta-data/instance-id",
        "/2021-07-1/meta-data/instance-id",
        "/meta-data/instance-id",
        "/latest/meta-data/instance-id/more",
        "/latest/meta-data/INSTANCE-ID",
        "/latest/meta-data/placement/nothing",
        "/latest/meta-data/spot/instance-action",
        "/latest/meta-data/spot/termination-time",
        "/latest/meta-data/spot",
        "/latest/meta-data/spot/",
        "/latest/meta-data/events/recommendations/rebalance",
        "/latest/meta-data/autoscaling/target-lifecycle-state",
        "/latest/dynamic/nothing",
        "/latest/nothing",
    ] {
        cases.push(get(path).is(not_found()));
        cases.push(ask("HEAD", path).is(not_found()));
    }
    let user_data = || text("#!/bin/sh\necho recorded\n").of_type("application/octet-stream");
    cases.extend([
        get("/latest/user-data").is(user_data()),
        get("/latest/user-data")
            .token("{good}")
            .is(user_data().left()),
        ask("HEAD", "/2021-07-15/user-data").is(user_data()),
    ]);
    cases
}

/// Other methods and other kinds of HTTP.
fn methods() -> Vec<Case> {
    let id = || text(IS_ID);
    let mut cases = vec![
        put(ID).ttl("60").is(forbidden()),
        ask("OPTIONS", ID).is(allowing("200 OK", "OPTIONS, GET, HEAD")),
        get(ID).http10().is(id()),
        get(ID).http10().with("Connection: keep-alive").is(id()),
        get(ID).with("Connection: close").is(id()),
        get(ID).with("Connection: keep-alive").is(id()),
        get(ID)
            .with("Connection: Upgrade, HTTP2-Settings")
            .with("Upgrade: h2c")
            .with("HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA")
            .is(id()),
        get(ID).with("Range: bytes=0-1").is(id()),
        get(ID).with("Accept-Encoding: gzip").is(id()),
        get(ID).with("Accept: application/json").is(id()),
        get(ID)
            .with("If-Modified-Since: Wed, 30 Jul 2036 23:22:04 GMT")
            .is(id()),
        get(ID).ttl("60").is(id()),
    ];
    for method in ["POST", "DELETE", "PATCH"] {
        let answer = allowing("405 Not Allowed", "OPTIONS, GET, HEAD");
        cases.push(ask(method, ID).is(answer));
    }
    cases
}

fn tokens_required() -> Vec<Case> {
    vec![
        put(TOKEN).ttl("60").is(issued(60)),
        put(TOKEN).ttl("0").is(refused("400 Bad Request")),
        put(TOKEN).ttl("60").forwarded().is(forbidden()),
        get(ID).is(unauthorized()),
        ask("HEAD", ID).is(unauthorized()),
        get(ID).forwarded().is(unauthorized()),
        get("/latest/meta-data/nothing").is(unauthorized()),
        get("/").is(unauthorized()),
        get("/latest/user-data").is(unauthorized()),
        get(ID).token("{expired}").is(unauthorized()),
        get(ID).token("{good}").is(text(IS_ID).left()),
        get(ID).token("{good}").forwarded().is(forbidden()),
        get("/latest/meta-data/nothing")
            .token("{good}")
            .is(not_found().left()),
        get(TOKEN).is(allowing("405 Not Allowed", "OPTIONS, PUT")),
    ]
}

fn switched_off() -> Vec<Case> {
    vec![
        put(TOKEN).ttl("60").is(forbidden()),
        get(TOKEN).is(forbidden()),
        get(ID).is(forbidden()),
        ask("HEAD", ID).is(forbidden()),
        get(ID).token("nonsense").is(forbidden()),
        get("/").is(forbidden()),
        get("/latest/meta-data/nothing").is(forbidden()),
    ]
}
