//! An OpenAI-compatible endpoint with scripted faults.

use std::collections::HashMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::{Value, json};

/// Reaction of the endpoint to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Conduct {
    /// Answers the request.
    Answer,
    /// Fails with a status and a text, in which `KEY` is replaced by the authorization header.
    Status(u16, &'static str),
    /// Responds with status 429 and this Retry-After in seconds.
    RateLimit(&'static str),
    /// Accepts the request and never answers.
    Stall,
    /// Sends half of the announced body and disconnects.
    Truncate,
    /// Sends this body.
    Body(&'static str),
    /// Answers with a compressed body, if the request accepts that.
    Gzip,
    /// Sends a reply with this message and finish reason, with the token counts of an answer.
    Reply(&'static str, &'static str),
    /// Responds with status 429 and this wait in milliseconds.
    RateLimitMs(&'static str),
}

/// A received request.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    /// Its body.
    pub(crate) body: Value,
    /// The reaction to it.
    pub(crate) conduct: Conduct,
    /// Time of arrival.
    pub(crate) at: Instant,
}

impl Received {
    /// Returns the text of the request.
    pub(crate) fn words(&self) -> String {
        words(&self.body)
    }
}

/// Returns the text of a request, without its pictures.
pub(crate) fn words(body: &Value) -> String {
    let mut all = String::new();
    for message in body["messages"].as_array().into_iter().flatten() {
        match &message["content"] {
            Value::Array(parts) => {
                for text in parts.iter().filter_map(|part| part["text"].as_str()) {
                    all.extend([text, "\n"]);
                }
            }
            content => all.extend([content.as_str().unwrap_or_default(), "\n"]),
        }
    }
    all
}

/// Chooses the reaction from the body, the number of earlier identical requests, and the number of all earlier
/// requests.
type Script = dyn Fn(&Value, usize, usize) -> Conduct + Send + Sync;
type Answers = dyn Fn(&Value) -> String + Send + Sync;

struct Shared {
    script: Box<Script>,
    answers: Box<Answers>,
    received: Mutex<Vec<Received>>,
}

/// The endpoint, which is shut down on drop.
pub(crate) struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    _runtime: tokio::runtime::Runtime,
}

impl Server {
    /// Starts an endpoint that follows `script` and takes answers from `answers`.
    pub(crate) fn start(
        answers: impl Fn(&Value) -> String + Send + Sync + 'static,
        script: impl Fn(&Value, usize, usize) -> Conduct + Send + Sync + 'static,
    ) -> Self {
        let shared = Arc::new(Shared {
            script: Box::new(script),
            answers: Box::new(answers),
            received: Mutex::default(),
        });
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/v1/chat/completions", post(serve)).with_state(Arc::clone(&shared));
        let router = router.layer(axum::extract::DefaultBodyLimit::disable());
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self { address, shared, _runtime: runtime }
    }

    /// Returns its address for `--endpoint`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Returns all requests so far.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap().clone()
    }

    /// Returns the number of times each request was answered and billed.
    pub(crate) fn paid(&self) -> HashMap<String, usize> {
        let mut paid = HashMap::new();
        for request in self.received() {
            if matches!(request.conduct, Conduct::Answer | Conduct::Gzip | Conduct::Reply(..)) {
                *paid.entry(request.body.to_string()).or_default() += 1;
            }
        }
        paid
    }
}

async fn serve(State(shared): State<Arc<Shared>>, headers: HeaderMap, bytes: Bytes) -> Response {
    let body: Value = serde_json::from_slice(&bytes).unwrap();
    let conduct = {
        let mut received = shared.received.lock().unwrap();
        let before = received.iter().filter(|request| request.body == body).count();
        let conduct = (shared.script)(&body, before, received.len());
        received.push(Received { body: body.clone(), conduct: conduct.clone(), at: Instant::now() });
        conduct
    };
    let answer = || {
        let message = json!({ "role": "assistant", "content": (shared.answers)(&body) });
        json!({
            "choices": [{ "index": 0, "message": message, "finish_reason": "stop" }],
            "usage": { "prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18 },
        })
        .to_string()
    };
    match conduct {
        Conduct::Answer => answer().into_response(),
        Conduct::Status(status, text) => {
            let key = headers.get(header::AUTHORIZATION).map_or("none", |value| value.to_str().unwrap());
            (StatusCode::from_u16(status).unwrap(), text.replace("KEY", key)).into_response()
        }
        Conduct::RateLimit(after) => {
            (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, after)], "slow down").into_response()
        }
        Conduct::Stall => std::future::pending().await,
        Conduct::Truncate => {
            let whole = answer();
            let half = whole[..whole.len() / 2].to_owned();
            let pieces = [Ok(half), Err(std::io::Error::other("the line is cut"))];
            let body = Body::from_stream(futures::stream::iter(pieces));
            ([(header::CONTENT_LENGTH, whole.len().to_string())], body).into_response()
        }
        Conduct::Body(body) => body.into_response(),
        Conduct::Gzip => {
            let accepts = headers.get(header::ACCEPT_ENCODING).map_or("", |value| value.to_str().unwrap());
            assert!(accepts.contains("gzip"), "{accepts}");
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(answer().as_bytes()).unwrap();
            ([(header::CONTENT_ENCODING, "gzip")], encoder.finish().unwrap()).into_response()
        }
        Conduct::Reply(message, finish) => {
            let usage = r#"{"prompt_tokens": 11, "completion_tokens": 7}"#;
            format!(
                r#"{{"choices": [{{"message": {message}, "finish_reason": {finish}}}], "usage": {usage}}}"#
            )
            .into_response()
        }
        Conduct::RateLimitMs(after) => {
            (StatusCode::TOO_MANY_REQUESTS, [("retry-after-ms", after)], "slow down").into_response()
        }
    }
}
