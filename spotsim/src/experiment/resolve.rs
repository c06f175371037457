//! Whom a template's targets are, of the workloads there are: pure.
//!
//! Each workload counts as an instance: a pod's labels are its tags, and behind them those of the
//! instance that it is on, whose attributes it has ([AWS: targets][1]).
//!
//! [1]: https://docs.aws.amazon.com/fis/latest/userguide/targets.html

use std::collections::BTreeMap;

use fastrand::Rng;

use super::template::{Filter, FilterPath, Scope, Wanted};
use crate::{
    instance::Identity,
    target::{Named, Select, Target},
};

/// A workload that may be chosen.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub target: Target,
    /// Whether anything runs in it.
    pub running: bool,
    /// The instance that it is on, where its IMDS told.
    pub identity: Option<Identity>,
}

/// Who was found for each target, by its name in the template. With the same seed, and the same
/// to choose from, they are the same.
///
/// Of fewer than `COUNT(n)` all are taken: AWS's own workshops call it "up to" so many. Of a
/// percentage nothing may be left.
pub fn resolve(
    scopes: &BTreeMap<&str, &Scope>,
    candidates: &[Candidate],
    seed: u64,
) -> BTreeMap<String, Vec<Candidate>> {
    let mut seeds = Rng::with_seed(seed);
    let mut found = BTreeMap::new();
    for (name, scope) in scopes {
        // Each its own: two targets of one each are not to be the same one as a rule.
        let seed = seeds.u64(..);
        let matching = candidates
            .iter()
            .filter(|candidate| candidate.matches(scope));
        let matching: Vec<_> = matching.cloned().collect();
        let key = |candidate: &Candidate| (candidate.target.to_string(), candidate.target.id());
        let select = match scope.select {
            Select::Count(count) if matching.len() < count.get() as usize => Select::All,
            select => select,
        };
        let picked = select.pick(matching, seed, key).unwrap_or_default();
        found.insert((*name).to_owned(), picked);
    }
    found
}

impl Candidate {
    fn matches(&self, scope: &Scope) -> bool {
        let named = match &scope.wanted {
            Wanted::Tags(tags) => tags.iter().all(|(key, value)| self.has_tag(key, value)),
            Wanted::Arns(arns) => {
                let identity = self.identity.as_ref();
                identity.is_some_and(|identity| arns.contains(&identity.arn()))
            }
        };
        named && scope.filters.iter().all(|filter| self.passes(filter))
    }

    fn has_tag(&self, key: &str, value: &str) -> bool {
        let label = match &self.target.named {
            Named::Pod { labels, .. } => labels.get(key),
            _ => None,
        };
        let tag = self.identity.as_ref().and_then(|it| it.tags.get(key));
        [label, tag].into_iter().flatten().any(|has| has == value)
    }

    /// Whether the attribute has one of the values.
    fn passes(&self, filter: &Filter) -> bool {
        let Filter { path, values } = filter;
        let has = self.attribute(*path);
        values.iter().any(|wanted| has.contains(&wanted.as_str()))
    }

    /// As `ec2:DescribeInstances` has it; nothing if it is not known.
    fn attribute(&self, path: FilterPath) -> Vec<&str> {
        if path == FilterPath::State {
            return vec![if self.running { "running" } else { "stopped" }];
        }
        let Some(instance) = &self.identity else {
            return Vec::new();
        };
        let network = &instance.network;
        match path {
            FilterPath::State => Vec::new(),
            FilterPath::Architecture => vec![&instance.architecture],
            FilterPath::Image => vec![&instance.image],
            FilterPath::Instance => vec![&instance.instance],
            FilterPath::Type => vec![&instance.instance_type],
            FilterPath::Zone => vec![&instance.zone],
            FilterPath::PrivateIp => vec![&instance.private_ip],
            FilterPath::Subnet => network.subnet.as_deref().into_iter().collect(),
            FilterPath::Vpc => network.vpc.as_deref().into_iter().collect(),
            FilterPath::SecurityGroup => {
                network.security_groups.iter().map(String::as_str).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        instance::Network,
        target::{Cgroup, PodName},
    };

    fn identity(number: u8) -> Identity {
        let tag = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        Identity {
            instance: format!("i-{number}"),
            account: "123456789012".to_owned(),
            region: "eu-west-1".to_owned(),
            partition: "aws".to_owned(),
            zone: format!("eu-west-1{}", if number < 3 { 'a' } else { 'b' }),
            instance_type: "m5.large".to_owned(),
            image: "ami-1".to_owned(),
            architecture: "x86_64".to_owned(),
            private_ip: format!("10.0.0.{number}"),
            network: Network {
                vpc: Some("vpc-1".to_owned()),
                subnet: Some(format!("subnet-{number}")),
                security_groups: [format!("sg-{}", number % 2), "sg-all".to_owned()].into(),
            },
            tags: [tag("group", "spot"), tag("app", "of-the-node")].into(),
        }
    }

    /// Five pods of two applications, each on an instance of its own; the last is not running.
    fn candidates() -> Vec<Candidate> {
        let pod = |(number, app): (u8, &str)| Candidate {
            target: Target {
                cgroup: Cgroup::plain(&format!("/{number}"), std::env::temp_dir()),
                named: Named::Pod {
                    pod: PodName {
                        namespace: "default".to_owned(),
                        name: format!("pod-{number}"),
                    },
                    uid: number.to_string(),
                    labels: [("app".to_owned(), app.to_owned())].into(),
                    host_network: false,
                },
            },
            running: number < 5,
            identity: Some(identity(number)),
        };
        [(1, "web"), (2, "web"), (3, "web"), (4, "db"), (5, "web")]
            .map(pod)
            .to_vec()
    }

    fn tags(pairs: &[(&str, &str)]) -> Wanted {
        let pair = |&(key, value): &(&str, &str)| (key.to_owned(), value.to_owned());
        Wanted::Tags(pairs.iter().map(pair).collect())
    }

    fn scope(wanted: Wanted, filters: &[(FilterPath, &[&str])], select: &str) -> Scope {
        let filter = |&(path, values): &(FilterPath, &[&str])| Filter {
            path,
            values: values.iter().map(|&value| value.to_owned()).collect(),
        };
        Scope {
            wanted,
            filters: filters.iter().map(filter).collect(),
            select: select.parse().unwrap(),
        }
    }

    fn found(scope: &Scope, seed: u64) -> Vec<String> {
        let mut found = resolve(&[("it", scope)].into(), &candidates(), seed);
        let found = found.remove("it").unwrap().into_iter();
        let paths = found.map(|candidate| candidate.target.cgroup.path()[1..].to_owned());
        paths.collect()
    }

    #[test]
    fn labels_count_before_the_tags_of_the_instance() {
        for (wanted, expected) in [
            (tags(&[("app", "web")]), &["1", "2", "3", "5"][..]),
            (tags(&[("app", "db"), ("group", "spot")]), &["4"]),
            (tags(&[("group", "spot")]), &["1", "2", "3", "4", "5"]),
            // A tag of the node's own is its pods' too.
            (tags(&[("app", "of-the-node")]), &["1", "2", "3", "4", "5"]),
            (tags(&[("app", "Web")]), &[]),
            (tags(&[("group", "")]), &[]),
            (tags(&[("app", "web"), ("absent", "x")]), &[]),
        ] {
            assert_eq!(found(&scope(wanted, &[], "ALL"), 1), expected);
        }
    }

    #[test]
    fn arns_are_those_of_the_instances() {
        let arn = |id: &str| format!("arn:aws:ec2:eu-west-1:123456789012:instance/{id}");
        let wanted = Wanted::Arns(vec![arn("i-2"), arn("i-4"), arn("i-9")]);
        assert_eq!(found(&scope(wanted, &[], "ALL"), 1), ["2", "4"]);
        let elsewhere = Wanted::Arns(vec![arn("i-2").replace("west", "north")]);
        assert!(found(&scope(elsewhere, &[], "ALL"), 1).is_empty());
    }

    #[test]
    fn all_filters_must_pass_each_by_one_of_its_values() {
        use FilterPath::*;
        for (filters, expected) in [
            (&[(State, &["running"][..])][..], &["1", "2", "3", "4"][..]),
            (&[(State, &["stopped", "stopping"])], &["5"]),
            (&[(State, &["Running"])], &[]),
            (
                &[(Zone, &["eu-west-1b"]), (State, &["running"])],
                &["3", "4"],
            ),
            (&[(Instance, &["i-1", "i-4"])], &["1", "4"]),
            (&[(PrivateIp, &["10.0.0.3"])], &["3"]),
            (&[(Type, &["m5.large"]), (Image, &["ami-2"])], &[]),
            (&[(Vpc, &["vpc-1"]), (Subnet, &["subnet-4"])], &["4"]),
            (&[(Vpc, &["vpc-2"])], &[]),
            (&[(SecurityGroup, &["sg-1", "sg-none"])], &["1", "3", "5"]),
            (
                &[(SecurityGroup, &["sg-0"]), (SecurityGroup, &["sg-all"])],
                &["2", "4"],
            ),
            (
                &[(Architecture, &["arm64", "x86_64"]), (Instance, &["i-2"])],
                &["2"],
            ),
        ] {
            let scope = scope(tags(&[("group", "spot")]), filters, "ALL");
            assert_eq!(found(&scope, 1), expected, "{filters:?}");
        }
    }

    #[test]
    fn of_an_instance_that_is_not_known_labels_are_enough() {
        let mut candidates = candidates();
        for candidate in &mut candidates {
            candidate.identity = None;
        }
        let number = |scope: &Scope| resolve(&[("it", scope)].into(), &candidates, 1)["it"].len();
        assert_eq!(number(&scope(tags(&[("app", "web")]), &[], "ALL")), 4);
        assert_eq!(number(&scope(tags(&[("group", "spot")]), &[], "ALL")), 0);
        let zone: &[&str] = &["eu-west-1a"];
        let filters = [(FilterPath::Zone, zone)];
        assert_eq!(number(&scope(tags(&[("app", "web")]), &filters, "ALL")), 0);
    }

    #[test]
    fn some_are_picked() {
        let web = |select| scope(tags(&[("app", "web")]), &[], select);
        assert_eq!(found(&web("PERCENT(50)"), 7).len(), 2);
        let one = found(&web("COUNT(1)"), 7);
        assert_eq!((one.len(), &one), (1, &found(&web("COUNT(1)"), 7)));
        assert_eq!(found(&web("COUNT(5)"), 7).len(), 4, "up to so many");
        // Nothing is nothing, however it came to be.
        assert!(found(&web("PERCENT(10)"), 7).is_empty());
        let nobody = scope(tags(&[("app", "none")]), &[], "COUNT(1)");
        assert!(found(&nobody, 7).is_empty());
    }

    #[test]
    fn two_targets_are_not_the_same_one_as_a_rule() {
        let one = scope(tags(&[("app", "web")]), &[], "COUNT(1)");
        let scopes = [("a", &one), ("b", &one)].into();
        let differ = |seed| {
            let found = resolve(&scopes, &candidates(), seed);
            found["a"][0].target.to_string() != found["b"][0].target.to_string()
        };
        assert!((600..900).contains(&(0..1_000).filter(|seed| differ(*seed)).count()));
    }
}
