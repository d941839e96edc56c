//! Between object_store and its HTTP client: sees every request, also those that object_store sends again by itself, and
//! tells the lane what it learns from them. GCS is told the sum of what it gets, which object_store has no way to say; it
//! refuses what is not that (x-goog-hash: cloud.google.com/storage/docs/xml-api/put-object-multipart).

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use async_trait::async_trait;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http_body::Body;
use object_store::client::{
    ClientOptions, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody,
    HttpResponse, HttpService, ReqwestConnector,
};

use super::lanes::Lanes;
use crate::checksum::crc32c_of;

/// Bodies up to here tell how long the way is.
const NEXT_TO_NOTHING: usize = 64 << 10;
const SUM: &str = "x-goog-hash";
/// "Slow down" and "too many requests".
const REFUSALS: [u16; 2] = [429, 503];

#[derive(Debug)]
pub struct Watching {
    pub lanes: Arc<Lanes>,
    /// Whether bodies go with their sum.
    pub sums: bool,
}

impl HttpConnector for Watching {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let inner = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Watched { inner, lanes: Arc::clone(&self.lanes), sums: self.sums }))
    }
}

#[derive(Debug)]
struct Watched {
    inner: HttpClient,
    lanes: Arc<Lanes>,
    sums: bool,
}

#[async_trait]
impl HttpService for Watched {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let lane = match request.method().as_str() {
            "GET" | "HEAD" => &self.lanes.bring,
            _ => &self.lanes.send,
        };
        let carries = request.body().content_length();
        // A POST that says something makes an object of many parts, or deletes many: no way takes so long.
        let is_quick = carries <= NEXT_TO_NOTHING && (carries == 0 || request.method() != "POST");
        if self.sums && request.method() == "PUT" && carries > 0 {
            let told = format!("crc32c={}", BASE64_STANDARD.encode(sum(request.body()).to_be_bytes()));
            request.headers_mut().insert(SUM, told.parse().expect("base64 is text"));
        }
        let began = Instant::now();
        let answer = self.inner.execute(request).await;
        match &answer {
            Ok(answer) if REFUSALS.contains(&answer.status().as_u16()) => lane.refused(began),
            Ok(answer) if answer.status().is_success() && is_quick => {
                lane.answered(began.elapsed());
            }
            Err(error) if error.kind() == HttpErrorKind::Timeout => lane.refused(began),
            _ => {}
        }
        answer
    }
}

/// Every piece of a body is at hand.
fn sum(body: &HttpRequestBody) -> u32 {
    let mut left = pin!(body.clone());
    let mut waits = Context::from_waker(Waker::noop());
    crc32c_of(std::iter::from_fn(|| match left.as_mut().poll_frame(&mut waits) {
        Poll::Ready(Some(Ok(frame))) => frame.into_data().ok(),
        _ => None::<Bytes>,
    }))
}
