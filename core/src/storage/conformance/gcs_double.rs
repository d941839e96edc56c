//! A double of Google Cloud Storage's XML API in this process, for what no emulator has: uploads as object_store makes them,
//! and answers that fail on demand. As far as the reference says and object_store asks
//! (cloud.google.com/storage/docs/xml-api/reference-methods): PUT, GET, HEAD and DELETE of objects with
//! x-goog-if-generation-match, listing in pages, multipart uploads with their least part and without preconditions.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::runtime::Runtime;

use super::gcs_xml::{self as xml, Failure};
use crate::storage::objects::Lanes;
use crate::storage::{StoreOptions, StoreUrl, crc32c};

const BUCKET: &str = "bucket";
const LAST_MODIFIED: &str = "Tue, 24 Nov 2026 00:00:00 GMT";
/// Of every part but the last (multipart upload quotas).
const LEAST_PART: usize = 5 << 20;
const MOST_BODY: usize = 256 << 20;

/// Ends with the value.
pub struct GcsDouble {
    pub url: StoreUrl,
    pub options: StoreOptions,
    bucket: Arc<Bucket>,
    _runtime: Runtime,
}

/// What goes wrong with one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Refused with this status; nothing is done.
    Refused(u16),
    /// Of what arrives a bit is not what was sent.
    Flipped,
    /// Done, and then the connection ends without an answer.
    LostAnswer,
    /// Done, and half of the answer's body is sent.
    CutShort,
}

type Faults = Box<dyn FnMut(&Method, &str) -> Option<Fault> + Send>;

#[derive(Default)]
struct Bucket {
    objects: Mutex<BTreeMap<String, Bytes>>,
    uploads: Mutex<BTreeMap<String, BTreeMap<usize, Bytes>>>,
    faults: Mutex<Option<Faults>>,
}

impl GcsDouble {
    pub fn start() -> GcsDouble {
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let bucket = Arc::<Bucket>::default();
        let router = axum::Router::new().fallback(answer).with_state(Arc::clone(&bucket));
        runtime.spawn(async move { axum::serve(listener, router).await });
        let options = StoreOptions {
            gcs_emulator: Some(address.to_string()),
            part_bytes: Some(5 << 20),
            ..StoreOptions::default()
        };
        let url = format!("gs://{BUCKET}/some/prefix").parse().unwrap();
        GcsDouble { url, options, bucket, _runtime: runtime }
    }

    /// Those of the stores that are opened with these options.
    pub fn lanes(&self) -> Arc<Lanes> {
        let service = format!("gs://{BUCKET}");
        Lanes::to((&service, self.options.gcs_emulator.as_deref()), self.options.requests)
    }

    /// Asked for every request from now on: method, and path with query.
    pub fn fail(&self, faults: impl FnMut(&Method, &str) -> Option<Fault> + Send + 'static) {
        *self.bucket.faults.lock() = Some(Box::new(faults));
    }

    /// Multipart uploads that are neither complete nor aborted.
    pub fn open_uploads(&self) -> usize {
        self.bucket.uploads.lock().len()
    }
}

async fn answer(State(bucket): State<Arc<Bucket>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
    let fault = bucket.faults.lock().as_mut().and_then(|faults| faults(&parts.method, &target));
    let content = to_bytes(body, MOST_BODY).await.unwrap_or_default();
    if let Some(Fault::Refused(status)) = fault {
        return xml::error(Failure(status, "Injected"));
    }
    let content = if fault == Some(Fault::Flipped) { flipped(&content) } else { content };
    let done = bucket.act(&parts.method, &target, &parts.headers, content);
    let response = done.unwrap_or_else(xml::error);
    match fault {
        // Unwinds without the word of a panic; the server drops the connection.
        Some(Fault::LostAnswer) => std::panic::resume_unwind(Box::new("the answer is lost")),
        Some(Fault::CutShort) => cut_short(response).await,
        _ => response,
    }
}

fn flipped(content: &[u8]) -> Bytes {
    let mut content = content.to_vec();
    let middle = content.len() / 2;
    content.iter_mut().skip(middle).take(1).for_each(|byte| *byte ^= 4);
    content.into()
}

async fn cut_short(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    let whole = to_bytes(body, MOST_BODY).await.unwrap_or_default();
    parts.headers.insert("content-length", whole.len().into());
    let half = Ok(whole.slice(..whole.len() / 2));
    let cut = Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
    Response::from_parts(parts, Body::from_stream(futures::stream::iter([half, cut])))
}

impl Bucket {
    fn act(
        &self,
        method: &Method,
        target: &str,
        headers: &HeaderMap,
        content: Bytes,
    ) -> Result<Response, Failure> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let query = xml::query(query);
        let (bucket, name) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
        if bucket != BUCKET {
            return Err(Failure(404, "NoSuchBucket"));
        }
        let name = xml::decoded(name);
        // Every body that becomes part of an object says what it is.
        if method == "PUT" && !content.is_empty() && xml::sum_told(headers) != Some(crc32c(&content)) {
            return Err(Failure(400, "BadDigest"));
        }
        let upload = query.get("uploadId");
        match (method.as_str(), upload) {
            ("GET", None) if name.is_empty() => Ok(xml::listing(&self.objects.lock(), &query)),
            ("GET" | "HEAD", None) => self.get(&name, headers),
            ("PUT", None) => self.put(name, headers, content),
            ("DELETE", None) => {
                self.objects.lock().remove(&name).map(|_| empty(204)).ok_or(Failure(404, "NoSuchKey"))
            }
            ("POST", None) if query.contains_key("uploads") => self.begin(headers),
            ("PUT", Some(upload)) => self.part(upload, &query["partNumber"], content),
            ("POST", Some(upload)) => self.complete(name, upload, &content),
            ("DELETE", Some(upload)) => {
                self.uploads.lock().remove(upload).map(|_| empty(204)).ok_or(Failure(404, "NoSuchUpload"))
            }
            _ => Err(Failure(405, "MethodNotAllowed")),
        }
    }

    fn get(&self, name: &str, headers: &HeaderMap) -> Result<Response, Failure> {
        let content = self.objects.lock().get(name).cloned().ok_or(Failure(404, "NoSuchKey"))?;
        let response = Response::builder()
            .header("etag", xml::etag(&content))
            .header("x-goog-generation", "1")
            .header("last-modified", LAST_MODIFIED);
        let range = headers.get("range").and_then(|range| range.to_str().ok()?.strip_prefix("bytes="));
        let response = match range.and_then(|range| range.split_once('-')) {
            None => response.header("content-length", content.len()).body(Body::from(content)),
            Some((first, last)) => {
                let first: usize = first.parse().unwrap();
                let end = last.parse::<usize>().map_or(content.len(), |last| content.len().min(last + 1));
                if first >= content.len() {
                    return Err(Failure(416, "InvalidRange"));
                }
                response
                    .status(StatusCode::PARTIAL_CONTENT)
                    .header("content-range", format!("bytes {first}-{}/{}", end - 1, content.len()))
                    .body(Body::from(content.slice(first..end)))
            }
        };
        Ok(response.unwrap())
    }

    /// x-goog-if-generation-match: 0 is for objects that are not there.
    fn put(&self, name: String, headers: &HeaderMap, content: Bytes) -> Result<Response, Failure> {
        let mut objects = self.objects.lock();
        match headers.get("x-goog-if-generation-match").map(|value| value.to_str().unwrap()) {
            Some("0") if objects.contains_key(&name) => return Err(Failure(412, "PreconditionFailed")),
            Some("0") | None => {}
            Some(_) => return Err(Failure(412, "PreconditionFailed")),
        }
        let response = tagged(xml::etag(&content));
        objects.insert(name, content);
        Ok(response)
    }

    fn begin(&self, headers: &HeaderMap) -> Result<Response, Failure> {
        if headers.contains_key("x-goog-if-generation-match") {
            return Err(Failure(400, "InvalidArgument"));
        }
        let id = format!("{:032x}", rand::random::<u128>());
        let text = format!(
            "<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
        );
        self.uploads.lock().insert(id, BTreeMap::new());
        Ok(Response::new(Body::from(text)))
    }

    fn part(&self, upload: &str, number: &str, content: Bytes) -> Result<Response, Failure> {
        let mut uploads = self.uploads.lock();
        let parts = uploads.get_mut(upload).ok_or(Failure(404, "NoSuchUpload"))?;
        let tag = xml::etag(&content);
        parts.insert(number.parse().unwrap(), content);
        Ok(tagged(tag))
    }

    fn complete(&self, name: String, upload: &str, wanted: &[u8]) -> Result<Response, Failure> {
        let mut uploads = self.uploads.lock();
        let parts = uploads.get(upload).ok_or(Failure(404, "NoSuchUpload"))?;
        let wanted = xml::parts(&String::from_utf8_lossy(wanted));
        let mut whole = Vec::new();
        for (position, (number, tag)) in wanted.iter().enumerate() {
            let part = parts.get(number).filter(|part| xml::etag(part) == *tag);
            let part = part.ok_or(Failure(400, "InvalidPart"))?;
            if part.len() < LEAST_PART && position + 1 < wanted.len() {
                return Err(Failure(400, "EntityTooSmall"));
            }
            whole.extend_from_slice(part);
        }
        uploads.remove(upload);
        let tag = xml::etag(&whole);
        self.objects.lock().insert(name, whole.into());
        let text =
            format!("<CompleteMultipartUploadResult><ETag>{tag}</ETag></CompleteMultipartUploadResult>");
        Ok(Response::builder().header("x-goog-generation", "1").body(Body::from(text)).unwrap())
    }
}

fn tagged(tag: String) -> Response {
    Response::builder().header("etag", tag).header("x-goog-generation", "1").body(Body::empty()).unwrap()
}

fn empty(status: u16) -> Response {
    Response::builder().status(status).body(Body::empty()).unwrap()
}
