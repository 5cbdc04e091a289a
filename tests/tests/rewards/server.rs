//! Stand-ins over HTTP: the server of an external reward, with faults, and an OpenAI-compatible endpoint.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

/// What the server does with a request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Conduct {
    Answer,
    Status(u16),
    Stall,
    /// Ends the connection after half of the answer.
    Break,
    NotJson,
    NaN,
    Null,
    OutOfRange,
    TooFew,
    OtherId,
}

/// A server that ends when dropped.
pub(crate) struct Server {
    pub(crate) url: String,
    shared: Arc<Shared>,
    _serving: DropGuard,
}

/// Decides on a request: the number of earlier requests with its id, and of earlier requests.
type Decide = Box<dyn Fn(usize, usize) -> Conduct + Send + Sync>;

struct Shared {
    decide: Decide,
    /// Numbers of requests and of complete answers, by id, and the authorization of the last request.
    log: Mutex<Log>,
}

#[derive(Default, Clone)]
pub(crate) struct Log {
    pub(crate) received: BTreeMap<String, usize>,
    pub(crate) answered: BTreeMap<String, usize>,
    pub(crate) authorization: Option<String>,
}

/// The reward of a completion: a function of its text, in tenths from 0 to 1.
pub(crate) fn reward(text: &str) -> f64 {
    f64::from(text.bytes().fold(7_u32, |sum, byte| (sum * 31 + u32::from(byte)) % 1009) % 11) / 10.0
}

impl Server {
    pub(crate) async fn start(
        decide: impl Fn(usize, usize) -> Conduct + Send + Sync + 'static,
    ) -> Result<Self> {
        let shared = Arc::new(Shared { decide: Box::new(decide), log: Mutex::default() });
        let routes = Router::new().route("/reward", post(answer)).with_state(shared.clone());
        let (address, serving) = serve(routes).await?;
        Ok(Self { url: format!("http://{address}/reward"), shared, _serving: serving })
    }

    pub(crate) fn log(&self) -> Log {
        self.shared.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn serve(routes: Router) -> Result<(String, DropGuard)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            served = async { axum::serve(listener, routes).await } => drop(served),
            () = stopped.cancelled() => {}
        }
    });
    Ok((address, stop.drop_guard()))
}

async fn answer(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let request: Value = serde_json::from_slice(&body).unwrap_or_default();
    let id = request["id"].as_str().unwrap_or_default().to_owned();
    let conduct = {
        let mut log = shared.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.authorization =
            headers.get("authorization").map(|value| value.to_str().unwrap_or_default().to_owned());
        let total = log.received.values().sum();
        let before = log.received.entry(id.clone()).or_default();
        *before += 1;
        (shared.decide)(*before - 1, total)
    };
    let completions = request["completions"].as_array().cloned().unwrap_or_default();
    let text = |completion: &Value| completion["text"].as_str().unwrap_or_default().to_owned();
    let mut rewards: Vec<Value> = completions.iter().map(|one| json!(reward(&text(one)))).collect();
    let mut named = id.clone();
    match conduct {
        Conduct::Answer => {
            let mut log = shared.log.lock().unwrap_or_else(PoisonError::into_inner);
            *log.answered.entry(id).or_default() += 1;
        }
        Conduct::Status(status) => {
            let quoted =
                headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
            let status = StatusCode::from_u16(status).unwrap_or_default();
            return (status, format!("no rewards for {quoted}")).into_response();
        }
        Conduct::Stall => std::future::pending().await,
        Conduct::Break => {
            let half = Bytes::from(format!("{{\"id\": \"{id}\", \"rewards\": [0.1"));
            let parts = shortened(half);
            return Response::builder().header("content-length", 1000).body(parts).unwrap_or_default();
        }
        Conduct::NotJson => return "the judge is asleep".into_response(),
        Conduct::NaN => return format!("{{\"id\": \"{id}\", \"rewards\": [NaN]}}").into_response(),
        Conduct::Null => rewards.iter_mut().for_each(|reward| *reward = Value::Null),
        Conduct::OutOfRange => rewards.iter_mut().for_each(|reward| *reward = json!(1.01)),
        Conduct::TooFew => drop(rewards.pop()),
        Conduct::OtherId => named.push('x'),
    }
    json!({ "id": named, "rewards": rewards }).to_string().into_response()
}

/// A body that is shorter than its announced length.
fn shortened(bytes: Bytes) -> Body {
    Body::from_stream(tokio_stream::once(Ok::<_, Infallible>(bytes)))
}

/// An OpenAI-compatible endpoint that grades a message by its text.
pub(crate) async fn judge() -> Result<(String, DropGuard)> {
    async fn reply(body: Bytes) -> String {
        let request: Value = serde_json::from_slice(&body).unwrap_or_default();
        let message = request["messages"][0]["content"].as_str().unwrap_or_default().to_owned();
        let content = format!("Grade: {}", (reward(&message) * 10.0).round());
        json!({ "choices": [{ "message": { "role": "assistant", "content": content } }] }).to_string()
    }
    let (address, serving) = serve(Router::new().route("/v1/chat/completions", post(reply))).await?;
    Ok((format!("http://{address}/v1"), serving))
}
