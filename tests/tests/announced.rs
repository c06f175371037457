//! Whatever is announced: it is found, in the listings too, nothing else is, and of what is
//! withdrawn nothing is left.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use hyper::{Method, Request, Response, StatusCode, body::Bytes, header::DATE};
use jiff::{SignedDuration, Timestamp};
use proptest::{collection, option, prelude::*, sample};
use spotsim::{
    instance::Instance,
    responder::{Mode, Responder, Synthetic, Upstream},
    timeline::{
        Action, AfterDeadline, Code, LifeCycle, LifecycleState, LifecycleStatePlan, NoticePlan,
        Plan, RebalancePlan, ScheduledPlan, Span, Timeline, When,
    },
};
use tokio::runtime::{Builder, Runtime};

const HOUR: u32 = 3_600;

/// Within so many hours everything in a plan happens.
const HOURS: u32 = 12;

/// The directories of which everything is announced, or else they are not there.
const OURS: [&str; 3] = ["autoscaling", "events/recommendations", "spot"];

/// When something happens, in hours from an instant that is chosen later: no plan has to wait
/// for its time to come.
type Hour = u32;

/// What is announced.
#[derive(Clone, Debug)]
struct Announced {
    /// Action, when it appears, and its lead in hours.
    notice: Option<(Action, Hour, u32)>,
    /// Whether the notice's deadline is given, instead of its lead.
    deadline: bool,
    rebalance: Option<Hour>,
    withdraw: bool,
    life_cycle: Option<LifeCycle>,
    events: Vec<Event>,
    states: BTreeMap<Hour, LifecycleState>,
}

#[derive(Clone, Debug)]
struct Event {
    code: Code,
    appears: Hour,
    not_before: Hour,
    /// So many hours after `not_before`.
    not_after: Option<u32>,
    not_before_deadline: Option<u32>,
    /// How it ends, so many hours after it appears.
    end: Option<(End, u32)>,
    lingers: Option<u32>,
    description: Option<String>,
}

#[derive(Clone, Copy, Debug)]
enum End {
    Canceled,
    Completed,
}

fn announced() -> impl Strategy<Value = Announced> {
    let notice = (sample::select(Action::ALL.to_vec()), 0..HOURS, 0..3_u32);
    let states = sample::select(LifecycleState::ALL.to_vec());
    (
        option::of(notice),
        any::<bool>(),
        option::of(0..HOURS),
        any::<bool>(),
        option::of(sample::select(LifeCycle::ALL.to_vec())),
        collection::vec(event(), 0..4),
        collection::btree_map(0..HOURS, states, 0..4),
    )
        .prop_map(
            |(notice, deadline, rebalance, withdraw, life_cycle, events, states)| Announced {
                notice,
                deadline,
                rebalance,
                withdraw,
                life_cycle,
                events,
                states,
            },
        )
}

fn event() -> impl Strategy<Value = Event> {
    let end = sample::select(vec![End::Canceled, End::Completed]);
    (
        sample::select(Code::ALL.to_vec()),
        0..HOURS,
        0..HOURS,
        option::of(0..4_u32),
        option::of(0..4_u32),
        option::of((end, 0..4_u32)),
        option::of(0..4_u32),
        option::of(r#"[ -~é\n"\\]{1,20}"#),
    )
        .prop_map(
            |(
                code,
                appears,
                not_before,
                not_after,
                not_before_deadline,
                end,
                lingers,
                description,
            )| Event {
                code,
                appears,
                not_before,
                not_after,
                not_before_deadline,
                end,
                lingers,
                description,
            },
        )
}

impl Announced {
    /// As a plan of which the first hour begins at `start`, armed then.
    fn timeline(&self, start: Timestamp) -> Timeline {
        let Self {
            notice,
            deadline,
            rebalance,
            withdraw,
            life_cycle,
            events,
            states,
        } = self;
        let at = |hour: Hour| When::At(start + SignedDuration::from_hours(hour.into()));
        // What is withdrawn has to have been there.
        let ends =
            notice.and_then(|(_, appears, lead)| (*withdraw && lead > 0).then_some(appears + lead));
        let rebalance = match (rebalance, ends) {
            (Some(appears), Some(ends)) => Some((*appears).min(ends - 1)),
            (rebalance, _) => *rebalance,
        };
        let plan = Plan {
            notice: notice.map(|(action, appears, lead)| NoticePlan {
                action,
                appears: at(appears),
                lead: (!deadline).then(|| Span::seconds(lead * HOUR)),
                deadline: deadline.then(|| at(appears + lead + 1)),
            }),
            rebalance: rebalance.map(|appears| RebalancePlan {
                appears: at(appears),
            }),
            after_deadline: ends.map(|_| AfterDeadline::Withdraw),
            life_cycle: *life_cycle,
            scheduled: events.iter().map(|event| event.plan(at)).collect(),
            lifecycle_states: states
                .iter()
                .map(|(&appears, &state)| LifecycleStatePlan {
                    state,
                    appears: at(appears),
                })
                .collect(),
            stagger: None,
        };
        plan.arm(start)
            .unwrap_or_else(|invalid| panic!("{invalid}: {plan:?}"))
    }
}

impl Event {
    fn plan(&self, at: impl Fn(Hour) -> When) -> ScheduledPlan {
        let Self {
            code,
            appears,
            not_before,
            not_after,
            not_before_deadline,
            end,
            lingers,
            description,
        } = self;
        let after = |hours: &Option<u32>| hours.map(|hours| at(not_before + hours));
        let end = end.map(|(end, hours)| (end, at(appears + hours)));
        let lingers = lingers.filter(|_| end.is_some() || not_after.is_some());
        let mut plan = ScheduledPlan::new(*code);
        plan.appears = at(*appears);
        plan.not_before = Some(at(*not_before));
        plan.not_after = after(not_after);
        plan.not_before_deadline = after(not_before_deadline);
        match end {
            Some((End::Canceled, when)) => plan.canceled = Some(when),
            Some((End::Completed, when)) => plan.completed = Some(when),
            None => {}
        }
        plan.lingers = lingers.map(|hours| Span::seconds(hours * HOUR));
        plan.description = description.clone();
        plan
    }
}

/// A synthetic instance, and what is announced of it.
struct Service {
    runtime: Runtime,
    instance: Synthetic,
    responder: Responder,
    /// The names in its `meta-data/` when nothing is announced.
    top: BTreeSet<String>,
}

fn service() -> Service {
    let booted = "2026-01-01T00:00:00Z".parse().unwrap();
    let mut service = Service {
        runtime: Builder::new_current_thread().enable_time().build().unwrap(),
        instance: Synthetic::new(Instance::synthetic(booted), Mode::V1V2),
        responder: Responder::new(Timeline::nothing(booted), Upstream::Nothing),
        top: BTreeSet::new(),
    };
    service.top = service.names("").expect("meta-data/ is there");
    service
}

impl Service {
    fn ask(&self, method: Method, place: &str) -> Response<Bytes> {
        let Self {
            runtime,
            instance,
            responder,
            ..
        } = self;
        let request = Request::builder()
            .method(method)
            .uri(format!("/latest/meta-data/{place}"))
            .body(());
        let answer = responder.rehearse(instance, request.unwrap());
        runtime.block_on(answer).expect("an answer")
    }

    /// What is at a place, if something is.
    fn read(&self, place: &str) -> Option<String> {
        let answer = self.ask(Method::GET, place);
        let length = self.ask(Method::HEAD, place).headers()["content-length"].clone();
        assert_eq!(length, answer.body().len().to_string(), "HEAD {place}");
        match answer.status() {
            StatusCode::OK => Some(String::from_utf8(answer.body().to_vec()).unwrap()),
            StatusCode::NOT_FOUND => None,
            status => panic!("{place}: {status}"),
        }
    }

    /// The names in a directory, if it is there.
    fn names(&self, directory: &str) -> Option<BTreeSet<String>> {
        let listing = self.read(directory)?;
        let names: BTreeSet<_> = listing.lines().map(str::to_owned).collect();
        assert_eq!(names.len(), listing.lines().count(), "twice: {listing}");
        Some(names)
    }

    /// Every document below a directory, by following the listings. Each name has to lead to
    /// something.
    fn documents(&self, directory: &str) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        let mut open = vec![directory.to_owned()];
        while let Some(directory) = open.pop() {
            for name in self.names(&directory).expect("it was listed") {
                let path = match directory.as_str() {
                    "" => name.clone(),
                    _ => format!("{}/{name}", directory.trim_end_matches('/')),
                };
                match name.ends_with('/') {
                    true => open.push(path),
                    false => {
                        let value = self.read(&path);
                        let value = value.unwrap_or_else(|| panic!("{path} is listed only"));
                        found.insert(path, value);
                    }
                }
            }
        }
        found
    }

    /// All answers but their dates, in the directories where anything can be announced.
    fn everything(&self) -> BTreeMap<String, (StatusCode, String, Bytes)> {
        let mut places: BTreeSet<String> = ["", "instance-id", "instance-life-cycle", "events"]
            .map(str::to_owned)
            .into();
        for path in PATHS {
            let segments: Vec<_> = path.split('/').collect();
            places.extend((1..=segments.len()).map(|count| segments[..count].join("/")));
        }
        let answer = |place: String| {
            let (mut head, body) = self.ask(Method::GET, &place).into_parts();
            head.headers.remove(DATE);
            (place, (head.status, format!("{:?}", head.headers), body))
        };
        places.into_iter().map(answer).collect()
    }

    /// Shows a timeline and looks at everything.
    fn shows(&self, timeline: Timeline) {
        let now = Timestamp::now();
        let visible: BTreeMap<_, _> = timeline
            .visible(now)
            .into_iter()
            .map(|item| (item.path.to_owned(), item.value))
            .collect();
        self.responder.show(timeline);
        for (path, value) in &visible {
            assert_eq!(self.read(path).as_ref(), Some(value), "{path}");
            self.is_listed(path);
        }
        // Nothing else is found where everything is announced.
        for directory in OURS {
            let within = |path: &str| path.starts_with(&format!("{directory}/"));
            let expected: BTreeMap<_, _> = visible
                .iter()
                .filter(|(path, _)| within(path))
                .map(|(path, value)| (path.clone(), value.clone()))
                .collect();
            if expected.is_empty() {
                assert_eq!(self.read(directory), None, "{directory}");
            } else {
                assert_eq!(self.documents(directory), expected, "{directory}");
            }
        }
        for path in PATHS.iter().filter(|path| !visible.contains_key(**path)) {
            let is_theirs = !OURS.iter().any(|directory| path.starts_with(directory));
            assert_eq!(self.read(path).is_some(), is_theirs, "{path}");
        }
        self.has_no_other_names(&visible);
    }

    /// Each directory above a path names what leads to it.
    fn is_listed(&self, path: &str) {
        let segments: Vec<_> = path.split('/').collect();
        for (depth, name) in segments.iter().enumerate() {
            let directory = segments[..depth].join("/");
            let name = match depth + 1 == segments.len() {
                true => (*name).to_owned(),
                false => format!("{name}/"),
            };
            let names = self.names(&directory).expect("it leads to something");
            assert!(names.contains(&name), "{name} in {directory}: {names:?}");
        }
    }

    /// The directories that the instance shares with what is announced have those names, its
    /// own, and no others; and each leads to something.
    fn has_no_other_names(&self, visible: &BTreeMap<String, String>) {
        let mut top = self.top.clone();
        for directory in ["autoscaling/", "spot/"] {
            if visible.keys().any(|path| path.starts_with(directory)) {
                top.insert(directory.to_owned());
            }
        }
        assert_eq!(self.names(""), Some(top.clone()));
        for name in top {
            assert!(self.read(&name).is_some(), "{name} is listed only");
        }
        let mut events = BTreeSet::from(["maintenance/".to_owned()]);
        if visible.contains_key("events/recommendations/rebalance") {
            events.insert("recommendations/".to_owned());
        }
        assert_eq!(self.names("events"), Some(events));
        let lists: BTreeSet<_> = self.documents("events/maintenance").into_keys().collect();
        let both = ["history", "scheduled"].map(|name| format!("events/maintenance/{name}"));
        assert_eq!(lists, both.into());
    }
}

/// Everything that can be announced.
const PATHS: [&str; 7] = [
    "autoscaling/target-lifecycle-state",
    "events/maintenance/history",
    "events/maintenance/scheduled",
    "events/recommendations/rebalance",
    "instance-life-cycle",
    "spot/instance-action",
    "spot/termination-time",
];

/// When a plan begins, so that it is `hours` and a half old now: nothing in it happens during a
/// test.
fn begun(hours: i64) -> Timestamp {
    Timestamp::now() - SignedDuration::from_mins(hours * 60 + 30)
}

thread_local! {
    /// A runtime stays on its thread.
    static SERVICE: LazyLock<Service> = LazyLock::new(service);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_announced_is_found_and_leaves_nothing(
        announced in announced(),
        ages in [-2..i64::from(HOURS + 10), -2..i64::from(HOURS + 10)],
    ) {
        SERVICE.with(|service| {
            let nothing = Timeline::nothing(Timestamp::now());
            service.responder.show(nothing.clone());
            let before = service.everything();
            for age in ages {
                service.shows(announced.timeline(begun(age)));
            }
            service.responder.show(nothing);
            assert_eq!(service.everything(), before);
        });
    }
}

/// The plans above are not all empty, and of all kinds.
#[test]
fn the_plans_are_of_every_kind() {
    use proptest::{strategy::ValueTree as _, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let mut seen: BTreeMap<&str, u32> = PATHS.map(|path| (path, 0)).into();
    let now = Timestamp::now();
    for _ in 0..500 {
        let announced = announced().new_tree(&mut runner).unwrap().current();
        for item in announced.timeline(begun(6)).visible(now) {
            *seen.entry(item.path).or_default() += 1;
        }
    }
    assert!(seen.len() == PATHS.len(), "{seen:?}");
    assert!(
        seen.values().all(|count| (25..=475).contains(count)),
        "{seen:?}"
    );
}
