//! `spotsim serve`: the responder alone, for whoever can be told where IMDS is.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context as _, Result};
use clap::Args;
use jiff::Timestamp;
use log::{LevelFilter, info, warn};
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::oneshot,
};

use super::{Exit, Misuse, log as log_to, options::Options, runtime, stop::Stop};
use crate::{
    consequence::Consequences,
    control::{Reason, Served, Session, Verb},
    instance::{self, Saved},
    journal::Feed,
    netns::{Namespace, Owner},
    responder::{BACKLOG, Exchange, Place, Responder, Visitor, Witness, serve},
};

#[derive(Args)]
pub struct Serve {
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:1338")]
    listen: SocketAddr,

    /// Write what the upstream's instance says, without its secrets, to a file for --instance, and
    /// end
    #[arg(long, value_name = "FILE", conflicts_with_all = ["listen", "hold", "announced"])]
    save_instance: Option<PathBuf>,

    #[command(flatten)]
    options: Options,
}

impl Serve {
    pub fn run(self) -> Result<Exit> {
        log_to::start(self.options.verbosity.log_level(LevelFilter::Info))?;
        let Self {
            listen,
            save_instance,
            options,
        } = self;
        match save_instance {
            Some(file) => runtime()?.block_on(save(&file, &options)),
            None => runtime()?.block_on(serve_at(listen, &options)),
        }
    }
}

/// Asks an IMDS for all that can be told.
async fn save(file: &Path, options: &Options) -> Result<Exit> {
    let imds = options.upstream.imds()?;
    let Saved {
        documents,
        left_out,
    } = instance::save(imds, file, Timestamp::now()).await?;
    for document in left_out {
        warn!("left out {document}");
    }
    let plural = if documents == 1 { "" } else { "s" };
    log_to::print(format!(
        "saved: {}, {documents} document{plural}",
        file.display()
    ));
    Ok(Exit::Done)
}

/// Serves until it is asked to end.
async fn serve_at(listen: SocketAddr, options: &Options) -> Result<Exit> {
    let plan = options.plan_for_one("serve")?;
    let upstream = options.upstream.upstream(true)?;
    if upstream.is_trusting() && !listen.ip().is_loopback() {
        return Err(Misuse::error(format!(
            "--listen {listen} with --upstream {upstream} would hand this instance's \
             credentials to the network; listen on 127.0.0.1 or [::1]"
        )));
    }
    let claim = options.claim()?;
    let courier = options.events.courier().await?;
    let mut stop = Stop::new()?;
    let feed = Feed::default();
    let listener = listener(listen).with_context(|| format!("cannot listen on {listen}"))?;
    let address = listener.local_addr()?;
    let visitors = Visitors {
        count: AtomicU64::new(0),
        feed: feed.clone(),
    };
    let namespace = Namespace::current().context("cannot open the network namespace")?;
    let place = Arc::new(Place::new(namespace, Box::new(visitors)));
    let timeline = plan.arm(Timestamp::now())?;
    let responder = Arc::new(Responder::new(timeline, upstream));
    let served = Served::Listen(address.to_string());
    let consequences = Consequences::start(Arc::clone(&responder), None, courier, None);
    let session = Session::start(
        claim,
        Verb::Serve,
        served,
        None,
        Arc::clone(&responder),
        feed,
        &consequences,
    )?;
    log_to::print(format!(
        "serving: http://{address}; upstream {}; {}",
        responder.upstream(),
        responder.waves().first()
    ));
    let (end, ended) = oneshot::channel::<()>();
    // By a worker, which has its clients' tasks too. From here each of them would be handed over.
    let serving = tokio::spawn(serve(listener, place, responder, async { _ = ended.await }));
    let reason = tokio::select! {
        () = stop.asked() => Reason::Stopped,
        () = options.lasts() => Reason::TimeOver,
        () = session.asked_to_detach() => Reason::Detached,
    };
    drop(end);
    serving.await.context("the listener has failed")?;
    tokio::join!(session.end(reason), consequences.end());
    info!("ended: {reason}");
    Ok(Exit::Done)
}

/// As `TcpListener::bind`, but for its backlog of 128.
fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Lets everybody in who comes.
struct Visitors {
    count: AtomicU64,
    feed: Feed,
}

impl Witness for Visitors {
    fn arrived(&self, _: SocketAddr, _: SocketAddr) -> Option<Visitor> {
        Some(Visitor {
            cookie: self.count.fetch_add(1, Ordering::Relaxed),
            owner: Owner::current(),
            target: None,
        })
    }

    /// Nothing tells; the client may be on another machine.
    fn waits(&self, _: SocketAddr, _: SocketAddr) -> bool {
        true
    }

    fn answered(&self, _: Visitor, exchange: &Exchange<'_>) {
        let Self { feed, .. } = self;
        feed.answered(exchange, || None);
        info!("{exchange}");
    }
}
