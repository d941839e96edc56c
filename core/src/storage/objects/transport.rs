//! Between object_store and its HTTP client: sees every request, also those that object_store sends again by itself, and
//! tells the lane what it learns from them.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use object_store::client::{
    ClientOptions, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpService, ReqwestConnector,
};

use super::lanes::Lanes;

/// Bodies up to here tell how long the way is.
const NEXT_TO_NOTHING: usize = 64 << 10;
/// "Slow down" and "too many requests".
const REFUSALS: [u16; 2] = [429, 503];

#[derive(Debug)]
pub struct Watching {
    pub lanes: Arc<Lanes>,
}

impl HttpConnector for Watching {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let inner = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Watched { inner, lanes: Arc::clone(&self.lanes) }))
    }
}

#[derive(Debug)]
struct Watched {
    inner: HttpClient,
    lanes: Arc<Lanes>,
}

#[async_trait]
impl HttpService for Watched {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let lane = match request.method().as_str() {
            "GET" | "HEAD" => &self.lanes.bring,
            _ => &self.lanes.send,
        };
        let carries = request.body().content_length();
        // A POST that says something makes an object of many parts, or deletes many: no way takes so long.
        let is_quick = carries <= NEXT_TO_NOTHING && (carries == 0 || request.method() != "POST");
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
