//! The body of an answer: the upstream's as it comes, or ours.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use http_body_util::{Either, Full};
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};

use super::upstream::Passed;

/// A body that never says of itself that it is empty, though its size may be 0. Of an empty
/// one hyper would write `Content-Length: 0` after all other headers, not where it stood.
pub struct Body(Either<Passed, Full<Bytes>>);

impl From<Passed> for Body {
    fn from(body: Passed) -> Self {
        Self(Either::Left(body))
    }
}

impl From<Full<Bytes>> for Body {
    fn from(body: Full<Bytes>) -> Self {
        Self(Either::Right(body))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Self(body) = self.get_mut();
        Pin::new(body).poll_frame(cx)
    }

    fn size_hint(&self) -> SizeHint {
        let Self(body) = self;
        body.size_hint()
    }
}
