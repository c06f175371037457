//! What a request is answered with: the upstream's answer, and what is announced in it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{
        ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, ETAG, HeaderName, IF_MATCH,
        IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE, TRAILER,
        TRANSFER_ENCODING,
    },
    http::response::Parts,
};
use jiff::Timestamp;
use log::{debug, warn};
use tokio::{sync::watch, time::timeout};

use super::{
    NoAnswer, Place, Synthetic, Upstream, Visitor,
    announce::{Announced, Besides},
    body::Body,
    upstream::Origin,
    wire,
};
use crate::{
    instance::Identity,
    netns::Namespace,
    timeline::{Invalid, Item, Plan, Theirs, Waves},
};

/// How long a faked answer waits for the upstream's word on the client's token. The strictest
/// known client, the AWS SDK for Go, gives up after 500 ms.
const VERDICT_WITHIN: Duration = Duration::from_millis(250);

/// The longest listing or list of events that is combined with what is announced, in bytes.
const LONGEST_LISTING: usize = 1024 * 1024;

/// Headers of a request that are about what the upstream has alone. Where something is
/// announced, they would have it answer "not modified", in parts or in a coding.
static OF_THEIRS_ALONE: [HeaderName; 7] = [
    ACCEPT_ENCODING,
    IF_MATCH,
    IF_MODIFIED_SINCE,
    IF_NONE_MATCH,
    IF_RANGE,
    IF_UNMODIFIED_SINCE,
    RANGE,
];

/// Headers of an answer that are about the body which the upstream sent.
static OF_THEIR_BODY: [HeaderName; 5] = [
    CONTENT_ENCODING,
    HeaderName::from_static("content-md5"),
    ETAG,
    TRAILER,
    TRANSFER_ENCODING,
];

/// Decides what each request is answered with.
pub struct Responder {
    waves: watch::Sender<Waves>,
    upstream: Upstream,
    /// Whether the upstream has an interruption of its own. Then ours is not shown any more.
    real_interruption: AtomicBool,
}

impl Responder {
    /// Shows this from its arming on.
    pub fn new(shown: impl Into<Waves>, upstream: Upstream) -> Self {
        Self {
            waves: watch::Sender::new(shown.into()),
            upstream,
            real_interruption: AtomicBool::new(false),
        }
    }

    /// Shows something else: from the return on, every request that begins sees that.
    pub fn show(&self, shown: impl Into<Waves>) {
        self.real_interruption.store(false, Ordering::Relaxed);
        self.waves.send_replace(shown.into());
    }

    /// Announces a plan, to everybody or to some targets only, instead of what they are shown.
    ///
    /// # Errors
    ///
    /// The first thing in the plan that makes no sense; then nothing has changed.
    pub fn announce(&self, plan: &Plan, now: Timestamp, to: Option<&[u64]>) -> Result<(), Invalid> {
        let mut announced = Ok(());
        // Under one lock: a target may join at the same time.
        self.waves.send_if_modified(|waves| {
            let replaced = match to {
                None => waves.replaced(plan, now),
                Some(some) => waves.replaced_for(some, plan, now),
            };
            announced = replaced.map(|replaced| {
                self.real_interruption.store(false, Ordering::Relaxed);
                *waves = replaced;
            });
            announced.is_ok()
        });
        announced
    }

    /// Shows a target that came later what it is its turn to see.
    pub fn join(&self, target: u64) {
        self.change(|waves| waves.join(target, Timestamp::now()));
    }

    /// A target is gone.
    pub fn leave(&self, target: u64) {
        self.change(|waves| waves.leave(target));
    }

    /// While all see the same, who they are is no news.
    fn change(&self, change: impl FnOnce(&mut Waves)) {
        self.waves.send_if_modified(|waves| {
            let differed = waves.differ();
            change(waves);
            differed || waves.differ()
        });
    }

    /// What is shown to whom.
    pub fn waves(&self) -> Waves {
        self.waves.borrow().clone()
    }

    /// Tells when somebody is shown something else.
    pub fn changes(&self) -> watch::Receiver<Waves> {
        self.waves.subscribe()
    }

    /// Which instance the upstream describes, as seen from a namespace, or from spotsim's own.
    pub async fn identity(&self, from: Option<&Namespace>) -> anyhow::Result<Identity> {
        self.upstream.identity(from).await
    }

    /// Who answers what is not announced.
    pub fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// The answer, and whether anything in it is made up.
    pub(super) async fn answer(
        &self,
        request: Request<Incoming>,
        listener: SocketAddr,
        visitor: Visitor,
        place: &Place,
    ) -> Result<(Response<Body>, bool), NoAnswer> {
        let Self { upstream, .. } = self;
        let from = Origin {
            place,
            owner: visitor.owner,
            listener: listener.ip(),
        };
        let real = async |request| upstream.answer(from, request).await;
        self.combine(visitor.target, request, real).await
    }

    /// What a client of `synthetic` is answered: a whole exchange without a connection, for
    /// tests with many requests. Needs a runtime with a timer.
    #[doc(hidden)]
    pub async fn rehearse<B>(
        &self,
        synthetic: &Synthetic,
        request: Request<B>,
    ) -> Result<Response<Bytes>, NoAnswer> {
        let real = async |request| Ok(synthetic.answer(&request).map(Body::from));
        let (answer, _) = self.combine(None, request, real).await?;
        let (head, body) = answer.into_parts();
        let body = body.collect().await.map_err(NoAnswer::Unfit)?;
        Ok(Response::from_parts(head, body.to_bytes()))
    }

    /// What is announced to a target now, but for what a real interruption stands for.
    fn visible(&self, target: Option<u64>) -> Vec<Item> {
        let timeline = Arc::clone(self.waves.borrow().of(target));
        let mut visible = timeline.visible(Timestamp::now());
        if self.real_interruption.load(Ordering::Relaxed) {
            visible.retain(|item| item.theirs != Theirs::Preferred);
        }
        visible
    }

    /// What `real` answers, with what is announced.
    async fn combine<B>(
        &self,
        target: Option<u64>,
        mut request: Request<B>,
        real: impl AsyncFnOnce(Request<B>) -> Result<Response<Body>, NoAnswer>,
    ) -> Result<(Response<Body>, bool), NoAnswer> {
        let path = request.uri().path();
        let announced = Announced::find(request.method(), path, || self.visible(target));
        if announced.is_some() {
            let headers = request.headers_mut();
            for header in &OF_THEIRS_ALONE {
                headers.remove(header);
            }
        }
        match announced {
            None => Ok((real(request).await?, false)),
            Some(Announced::Item(item)) => {
                let real = in_time(real(request)).await;
                Ok(self.instead(real, item))
            }
            Some(Announced::Besides(besides)) => {
                // How long the two are together depends on what they have.
                *request.method_mut() = Method::GET;
                let real = async {
                    let (head, body) = real(request).await?.into_parts();
                    let body = Limited::new(body, LONGEST_LISTING).collect().await;
                    Ok((head, body.map_err(NoAnswer::Unfit)?.to_bytes()))
                };
                let real = if besides.is_top() {
                    Some(real.await?)
                } else {
                    in_time(real).await
                };
                Ok(together(real, &besides))
            }
        }
    }

    /// An announced item in the place of the upstream's answer.
    fn instead(&self, real: Option<Response<Body>>, item: Item) -> (Response<Body>, bool) {
        let Item {
            value,
            since,
            theirs,
            ..
        } = item;
        let ttl = match real {
            Some(real) => match real.status() {
                StatusCode::OK if theirs == Theirs::Preferred => {
                    if !self.real_interruption.swap(true, Ordering::Relaxed) {
                        warn!("IMDS itself announces an interruption: it is shown, ours is not");
                    }
                    return (real, false);
                }
                StatusCode::OK | StatusCode::NOT_FOUND => {
                    real.headers().get(&wire::TOKEN_TTL).cloned()
                }
                _ => return (real, false),
            },
            None => None,
        };
        let answer = wire::document(value, wire::TEXT, since, ttl);
        (answer.map(Body::from), true)
    }
}

/// What the upstream says, if it says it in time: then it judges the token, and only its "here"
/// or "not here" is replaced. One that cannot be reached in time judges nothing.
async fn in_time<T>(real: impl Future<Output = Result<T, NoAnswer>>) -> Option<T> {
    match timeout(VERDICT_WITHIN, real).await {
        Ok(Ok(real)) => Some(real),
        Ok(Err(reason)) => {
            debug!("answered without the upstream's verdict: {reason}");
            None
        }
        Err(_) => {
            debug!("answered without the upstream's verdict: none came in time");
            None
        }
    }
}

/// The upstream's answer with what is announced in it.
fn together(real: Option<(Parts, Bytes)>, besides: &Besides) -> (Response<Body>, bool) {
    let alone = |ttl| {
        let (ours, since) = besides.document();
        let answer = wire::document(ours, wire::TEXT, since, ttl);
        (answer.map(Body::from), true)
    };
    let Some((mut head, body)) = real else {
        return alone(None);
    };
    let both = match head.status {
        StatusCode::NOT_FOUND => return alone(head.headers.get(&wire::TOKEN_TTL).cloned()),
        StatusCode::OK => besides.with(str::from_utf8(&body).ok()),
        _ => None,
    };
    let Some(both) = both else {
        let answer = Response::from_parts(head, Full::from(body));
        return (answer.map(Body::from), false);
    };
    let (_, since) = besides.document();
    for header in &OF_THEIR_BODY {
        head.headers.remove(header);
    }
    head.headers.insert(CONTENT_LENGTH, both.len().into());
    wire::modified(&mut head.headers, since);
    let answer = Response::from_parts(head, Full::from(both));
    (answer.map(Body::from), true)
}
