//! A small Spot instance that exists nowhere, for machines that have no IMDS.

use std::collections::{BTreeMap, BTreeSet};

use hyper::{
    Method, Request, StatusCode,
    header::{HeaderMap, HeaderValue},
};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::{
    path::Resource,
    token::{TTL, Tokens},
    wire::{self, Answer, TEXT, TOKEN, TOKEN_TTL},
};
use crate::timeline::Item;

/// AWS keeps this account number for its documentation.
const ACCOUNT: &str = "123456789012";
const INSTANCE_ID: &str = "i-0123456789abcdef0";
const INSTANCE_TYPE: &str = "m5.large";
const REGION: &str = "us-east-1";
const ZONE: &str = "us-east-1a";
const ZONE_ID: &str = "use1-az1";
const IMAGE: &str = "ami-0123456789abcdef0";
const PRIVATE_IP: &str = "172.31.0.10";
const HOSTNAME: &str = "ip-172-31-0-10.ec2.internal";
const ROLE: &str = "spotsim-role";

/// The longest life of a role's credentials; the real service renews them before it is over.
const CREDENTIALS_LIVE: SignedDuration = SignedDuration::from_hours(6);

/// Header of a proxied request. The service refuses those, lest a proxy that forwards blindly
/// hand the instance's credentials to strangers.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// The instance: its token authority and its tree of values.
pub struct Synthetic {
    tokens: Tokens,
    booted: Timestamp,
    values: BTreeMap<&'static str, String>,
}

impl Synthetic {
    /// An instance that was launched at `booted`.
    pub fn new(booted: Timestamp) -> Self {
        Self {
            tokens: Tokens::new(),
            booted,
            values: values(booted),
        }
    }

    /// Answers a request as the service of a real instance would. `visible` is there besides
    /// the instance's own values.
    pub fn answer<B>(&self, request: &Request<B>, visible: &[Item]) -> Answer {
        let resource = Resource::parse(request.uri().path());
        let now = Timestamp::now();
        if resource.key == "api/token" && resource.has_version() {
            return self.token(request, &resource, now);
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return wire::not_allowed("GET, HEAD");
        }
        match self.authorize(request.headers(), now) {
            Ok(ttl) => self.get(&resource, visible, ttl, now),
            Err(status) => wire::refusal(status),
        }
    }

    /// `PUT /latest/api/token`, and what is not quite that.
    fn token<B>(&self, request: &Request<B>, resource: &Resource<'_>, now: Timestamp) -> Answer {
        let Self { tokens, .. } = self;
        if request.method() != Method::PUT {
            return wire::not_allowed("OPTIONS, PUT");
        }
        let headers = request.headers();
        if resource.version != "latest" || headers.contains_key(FORWARDED_FOR) {
            return wire::refusal(StatusCode::FORBIDDEN);
        }
        let ttl = headers.get(&TOKEN_TTL).and_then(|ttl| ttl.to_str().ok());
        match ttl.and_then(|ttl| ttl.parse().ok()) {
            Some(ttl) if TTL.contains(&ttl) => wire::token(tokens.issue(ttl, now), ttl),
            _ => wire::refusal(StatusCode::BAD_REQUEST),
        }
    }

    /// What is left of the request's token, or why it is refused. One without a token is of
    /// version 1. A client that renews its token may send the old one as well.
    fn authorize(
        &self,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Result<Option<HeaderValue>, StatusCode> {
        let Self { tokens, .. } = self;
        let mut given = headers.get_all(&TOKEN).iter().peekable();
        if given.peek().is_none() {
            return Ok(None);
        }
        if headers.contains_key(FORWARDED_FOR) {
            return Err(StatusCode::FORBIDDEN);
        }
        let left = given.filter_map(|token| tokens.remaining(token.as_bytes(), now));
        let longest = left.max().ok_or(StatusCode::UNAUTHORIZED)?;
        Ok(Some(HeaderValue::from(longest)))
    }

    fn get(
        &self,
        resource: &Resource<'_>,
        visible: &[Item],
        ttl: Option<HeaderValue>,
        now: Timestamp,
    ) -> Answer {
        let Self { booted, values, .. } = self;
        let Resource { version, key } = resource;
        if version.is_empty() {
            return wire::document("1.0\nlatest", TEXT, *booted, ttl);
        }
        if !resource.has_version() {
            return wire::not_found(ttl);
        }
        if *key == format!("meta-data/iam/security-credentials/{ROLE}") {
            return wire::document(credentials(now), TEXT, now, ttl);
        }
        if let Some(value) = values.get(key.as_str()) {
            return wire::document(value.clone(), TEXT, *booted, ttl);
        }
        let announced = visible
            .iter()
            .map(|item| format!("meta-data/{}", item.path));
        let keys = values.keys().map(|&key| key.to_owned()).chain(announced);
        match listing(keys, key) {
            Some(listing) => wire::document(listing, TEXT, *booted, ttl),
            None => wire::not_found(ttl),
        }
    }
}

/// What is directly below `directory`, one entry a line, directories with a slash; `None` if
/// nothing is.
fn listing(keys: impl Iterator<Item = String>, directory: &str) -> Option<String> {
    let entries: BTreeSet<_> = keys
        .filter_map(|key| {
            let below = match directory {
                "" => key.as_str(),
                _ => key.strip_prefix(directory)?.strip_prefix('/')?,
            };
            Some(match below.split_once('/') {
                Some((child, _)) => format!("{child}/"),
                None => below.to_owned(),
            })
        })
        .collect();
    let lines: Vec<_> = entries.into_iter().collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// The instance's own values by their place under the version.
fn values(booted: Timestamp) -> BTreeMap<&'static str, String> {
    let mut values: BTreeMap<_, _> = [
        ("meta-data/ami-id", IMAGE),
        ("meta-data/hostname", HOSTNAME),
        ("meta-data/instance-id", INSTANCE_ID),
        ("meta-data/instance-life-cycle", "spot"),
        ("meta-data/instance-type", INSTANCE_TYPE),
        ("meta-data/local-hostname", HOSTNAME),
        ("meta-data/local-ipv4", PRIVATE_IP),
        ("meta-data/placement/availability-zone", ZONE),
        ("meta-data/placement/availability-zone-id", ZONE_ID),
        ("meta-data/placement/region", REGION),
        ("meta-data/services/domain", "amazonaws.com"),
        ("meta-data/services/partition", "aws"),
        // Its value is made at each request; this is for the listing.
        ("meta-data/iam/security-credentials/spotsim-role", ""),
    ]
    .map(|(key, value)| (key, value.to_owned()))
    .into();
    values.insert("meta-data/iam/info", iam_info(booted));
    values.insert("dynamic/instance-identity/document", identity(booted));
    values
}

fn iam_info(booted: Timestamp) -> String {
    pretty(&json!({
        "Code": "Success",
        "LastUpdated": seconds(booted),
        "InstanceProfileArn": format!("arn:aws:iam::{ACCOUNT}:instance-profile/{ROLE}"),
        "InstanceProfileId": "AIPASPOTSIMEXAMPLE000",
    }))
}

/// Credentials that look right and open nothing.
fn credentials(now: Timestamp) -> String {
    pretty(&json!({
        "Code": "Success",
        "LastUpdated": seconds(now),
        "Type": "AWS-HMAC",
        "AccessKeyId": "ASIASPOTSIMEXAMPLE00",
        "SecretAccessKey": "spotsim/made/up/this/secret/EXAMPLEKEY00",
        "Token": "spotsim-made-up-this-session-token-EXAMPLE==",
        "Expiration": seconds(now + CREDENTIALS_LIVE),
    }))
}

fn identity(booted: Timestamp) -> String {
    pretty(&json!({
        "accountId": ACCOUNT,
        "architecture": "x86_64",
        "availabilityZone": ZONE,
        "billingProducts": null,
        "devpayProductCodes": null,
        "marketplaceProductCodes": null,
        "imageId": IMAGE,
        "instanceId": INSTANCE_ID,
        "instanceType": INSTANCE_TYPE,
        "kernelId": null,
        "pendingTime": seconds(booted),
        "privateIp": PRIVATE_IP,
        "ramdiskId": null,
        "region": REGION,
        "version": "2017-09-30",
    }))
}

/// A time as the service writes it, without a fraction.
fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn pretty(value: &serde_json::Value) -> String {
    format!("{value:#}")
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use hyper::body::Bytes;

    use super::*;

    fn instance() -> Synthetic {
        Synthetic::new("2026-01-01T00:00:00.5Z".parse().unwrap())
    }

    fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    fn body(answer: Answer) -> String {
        let body = answer.into_body().collect();
        let mut body = std::pin::pin!(body);
        let waker = std::task::Waker::noop();
        let mut context = std::task::Context::from_waker(waker);
        let std::task::Poll::Ready(Ok(body)) = body.as_mut().poll(&mut context) else {
            panic!("a full body is ready");
        };
        let bytes: Bytes = body.to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    fn get(path: &str) -> (u16, String) {
        let answer = instance().answer(&request("GET", path, &[]), &[]);
        (answer.status().as_u16(), body(answer))
    }

    #[test]
    fn a_token_is_issued_within_the_bounds_only() {
        let instance = instance();
        for (ttl, status) in [
            (Some("1"), 200),
            (Some("21600"), 200),
            (Some("0"), 400),
            (Some("21601"), 400),
            (Some("-1"), 400),
            (Some("ten"), 400),
            (None, 400),
        ] {
            let headers: Vec<_> = ttl
                .map(|ttl| (TOKEN_TTL.as_str(), ttl))
                .into_iter()
                .collect();
            let request = request("PUT", "/latest/api/token", &headers);
            let answer = instance.answer(&request, &[]);
            assert_eq!(answer.status(), status, "{ttl:?}");
            if status == 200 {
                assert_eq!(answer.headers()[&TOKEN_TTL], ttl.unwrap());
            }
        }
    }

    #[test]
    fn a_token_comes_from_one_place_and_one_method_only() {
        let ttl = (TOKEN_TTL.as_str(), "60");
        let instance = instance();
        let status = |method, path, headers: &[_]| {
            instance
                .answer(&request(method, path, headers), &[])
                .status()
        };
        assert_eq!(status("PUT", "/2021-03-23/api/token", &[ttl]), 403);
        assert_eq!(
            status(
                "PUT",
                "/latest/api/token",
                &[ttl, (FORWARDED_FOR, "10.0.0.1")]
            ),
            403
        );
        let answer = instance.answer(&request("GET", "/latest/api/token", &[]), &[]);
        assert_eq!(answer.status(), 405);
        assert_eq!(answer.headers()["allow"], "OPTIONS, PUT");
        assert_eq!(status("PUT", "/latest/meta-data/instance-id", &[ttl]), 405);
        assert_eq!(status("DELETE", "/latest/meta-data/instance-id", &[]), 405);
    }

    #[test]
    fn tokens_are_judged_as_the_service_does() {
        let instance = instance();
        let issue = request("PUT", "/latest/api/token", &[(TOKEN_TTL.as_str(), "60")]);
        let token = body(instance.answer(&issue, &[]));
        let get = |headers: &[_]| {
            instance.answer(
                &request("GET", "/latest/meta-data/instance-id", headers),
                &[],
            )
        };
        let fresh = (TOKEN.as_str(), token.as_str());
        let stale = (TOKEN.as_str(), "stale");
        assert_eq!(get(&[]).status(), 200);
        assert_eq!(get(&[fresh]).status(), 200);
        assert!(["59", "60"].contains(&get(&[fresh]).headers()[&TOKEN_TTL].to_str().unwrap()));
        assert_eq!(get(&[stale, fresh]).status(), 200);
        assert_eq!(get(&[stale]).status(), 401);
        assert_eq!(body(get(&[stale])), "");
        assert_eq!(get(&[fresh, (FORWARDED_FOR, "10.0.0.1")]).status(), 403);
    }

    #[test]
    fn listings_name_what_is_there() {
        assert_eq!(get("/latest"), (200, "dynamic/\nmeta-data/".to_owned()));
        let expected = "availability-zone\navailability-zone-id\nregion";
        assert_eq!(
            get("/latest/meta-data/placement/"),
            (200, expected.to_owned())
        );
        assert_eq!(get("/latest/meta-data/spot").0, 404);
        assert_eq!(get("/latest/meta-data/instance").0, 404);
        assert_eq!(get("/newest/meta-data/").0, 404);
        let (_, role) = get("/latest/meta-data/iam/security-credentials/");
        assert_eq!(role, ROLE);
        assert_eq!(
            get(&format!(
                "/latest/meta-data/iam/security-credentials/{role}"
            ))
            .0,
            200
        );
    }

    #[test]
    fn what_is_announced_is_listed() {
        let item = Item {
            path: "spot/instance-action",
            value: String::new(),
            since: Timestamp::now(),
        };
        let listed = |path| {
            let request = request("GET", path, &[]);
            body(instance().answer(&request, std::slice::from_ref(&item)))
        };
        assert_eq!(listed("/latest/meta-data/spot/"), "instance-action");
        assert!(listed("/latest/meta-data/").contains("services/\nspot/"));
    }

    #[test]
    fn documents_agree_with_the_values() {
        let (_, document) = get("/latest/dynamic/instance-identity/document");
        let document: serde_json::Value = serde_json::from_str(&document).unwrap();
        for (field, path) in [
            ("instanceId", "instance-id"),
            ("instanceType", "instance-type"),
            ("imageId", "ami-id"),
            ("privateIp", "local-ipv4"),
            ("region", "placement/region"),
            ("availabilityZone", "placement/availability-zone"),
        ] {
            assert_eq!(
                document[field],
                get(&format!("/latest/meta-data/{path}")).1,
                "{field}"
            );
        }
        assert_eq!(document["pendingTime"], "2026-01-01T00:00:00Z");
    }

    #[test]
    fn credentials_have_not_expired() {
        let (_, credentials) = get("/latest/meta-data/iam/security-credentials/spotsim-role");
        let credentials: serde_json::Value = serde_json::from_str(&credentials).unwrap();
        let expiration: Timestamp = credentials["Expiration"].as_str().unwrap().parse().unwrap();
        assert!(expiration > Timestamp::now() + SignedDuration::from_hours(5));
    }
}
