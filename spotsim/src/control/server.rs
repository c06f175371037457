//! HTTP on the control socket.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http_body_util::{BodyExt as _, Either, Full, LengthLimitError, Limited};
use hyper::{
    Request, Response, StatusCode,
    body::{Body as _, Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    http::uri::PathAndQuery,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use log::{debug, warn};
use serde::Serialize;
use tokio::{
    net::{UnixListener, UnixStream},
    time::{sleep, timeout},
};

use super::{
    Command, LONGEST_BODY, Refusal,
    session::{Phase, Subject},
    watch::{Lines, line},
};
use crate::responder::{Clients, Room};

/// More than so many connections cost the oldest, those first that never asked.
const MOST_CONNECTIONS: usize = 64;

/// A request whose head, or then whose body, is not here by then is given up.
const REQUEST_WITHIN: Duration = Duration::from_secs(10);

/// The longest request head, in bytes.
const LONGEST_HEAD: usize = 16 * 1024;

/// At the end, for so long may answers be read.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

type Answer = Response<Either<Full<Bytes>, Lines>>;

/// Serves until it has ended.
pub async fn serve(listener: UnixListener, subject: Arc<Subject>) {
    let mut clients = Clients::of(&Room::new(MOST_CONNECTIONS, MOST_CONNECTIONS));
    let mut phase = subject.phase();
    let mut failing = false;
    loop {
        let accepted = tokio::select! {
            _ = phase.wait_for(|phase| matches!(phase, Phase::Ended(_))) => break,
            accepted = listener.accept() => accepted,
            () = clients.one_over() => continue,
        };
        match accepted {
            Ok((stream, _)) => {
                failing = false;
                let subject = Arc::clone(&subject);
                clients.admit(async move |asked| converse(stream, &subject, &asked).await);
            }
            Err(error) => {
                // Out of descriptors, most likely. It may go on, and is said once.
                if !failing {
                    warn!("cannot accept control connections: {error}");
                }
                failing = true;
                sleep(Duration::from_millis(20)).await;
            }
        }
    }
    drop(listener);
    clients.finish(LAST_ANSWERS).await;
}

/// One connection, which has one request.
async fn converse(stream: UnixStream, subject: &Arc<Subject>, asked: &AtomicBool) {
    let service = service_fn(async |request| {
        asked.store(true, Ordering::Relaxed);
        let answer = attend(request, subject).await;
        Ok::<_, Infallible>(answer.unwrap_or_else(refuse))
    });
    let outcome = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_WITHIN)
        .max_buf_size(LONGEST_HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = outcome {
        debug!("control connection: {error}");
    }
}

async fn attend(request: Request<Incoming>, subject: &Arc<Subject>) -> Result<Answer, Refusal> {
    let (head, body) = request.into_parts();
    let body = read(body).await?;
    let target = head.uri.path_and_query().map_or("", PathAndQuery::as_str);
    match Command::parse(head.method.as_str(), target, &body)? {
        Command::Status => Ok(json(StatusCode::OK, &subject.status())),
        Command::Trigger { plan, to } => Ok(json(StatusCode::OK, &subject.trigger(&plan, &to)?)),
        Command::Cancel { to } => Ok(json(StatusCode::OK, &subject.cancel(&to)?)),
        Command::Detach => Ok(json(StatusCode::OK, &subject.detach().await?)),
        Command::Watch => {
            let mut answer = Response::new(Either::Right(Lines::of(subject)));
            let kind = HeaderValue::from_static("application/x-ndjson");
            answer.headers_mut().insert(CONTENT_TYPE, kind);
            Ok(answer)
        }
    }
}

async fn read(body: Incoming) -> Result<Bytes, Refusal> {
    // Without reading it, where it says so itself.
    if body.size_hint().lower() > LONGEST_BODY as u64 {
        return Err(Refusal::too_long());
    }
    match timeout(REQUEST_WITHIN, Limited::new(body, LONGEST_BODY).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refusal::too_long()),
        Ok(Err(error)) => Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            format!("cannot read the body: {error}"),
        )),
        Err(_) => Err(Refusal::new(
            StatusCode::REQUEST_TIMEOUT,
            "the body did not come",
        )),
    }
}

fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    let mut answer = Response::new(Either::Left(Full::from(line(value))));
    *answer.status_mut() = status;
    let kind = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

fn refuse(refusal: Refusal) -> Answer {
    let Refusal {
        status,
        allow,
        error,
    } = refusal;
    let mut answer = json(status, &serde_json::json!({ "error": error }));
    if let Some(allow) = allow {
        let allow = HeaderValue::from_static(allow);
        answer.headers_mut().insert(ALLOW, allow);
    }
    answer
}
