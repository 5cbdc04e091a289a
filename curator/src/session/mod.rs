//! A command's session with an endpoint: concurrent requests with rate limits, retries and resumption.
//!
//! A reply is stored before it is processed, and a request with a stored reply is not sent again. An interrupted
//! command can therefore be restarted and repeats the same requests without cost. An answer that violates the command's
//! rules is stored as well; the conversation continues with the reason.

mod arguments;
mod failure;
mod outcome;
mod tally;

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use podium_service::progress::Progress;
use podium_service::shutdown;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

pub(crate) use arguments::Arguments;
pub(crate) use failure::{Error, Failure};
pub(crate) use outcome::Outcome;

use crate::endpoint::{Endpoint, Limits, Message, Remedy, Reply, Request, Usage, wait_ms};
use crate::store::{Key, Store};
use tally::Tally;

/// Number of repetitions of a request whose billed replies have no answer.
const PAID_REPEATS: u32 = 2;

/// Options of a session.
#[derive(Debug, Clone)]
struct Plan {
    command: &'static str,
    model: String,
    concurrency: usize,
    retries: u32,
    backoff_ms: u64,
    longest_wait: Duration,
    corrections: u32,
    max_tokens: u64,
    temperature: Option<f64>,
    body: Map<String, Value>,
}

/// A request to the model.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    /// Its text and pictures.
    pub(crate) messages: Vec<Message>,
    /// Index of one of several answers, from 0; `None` if there is only one.
    pub(crate) sample: Option<u64>,
}

/// The session of one command.
#[derive(Debug)]
pub(crate) struct Session {
    plan: Plan,
    endpoint: Endpoint,
    store: Store,
    limits: Mutex<Limits>,
    tally: Mutex<Tally>,
    start: Instant,
    /// Cancelled by a signal, or by a failure that affects all requests.
    stop: CancellationToken,
    /// Requests in flight: identical concurrent requests are sent once.
    asking: Mutex<HashMap<Key, Arc<tokio::sync::Mutex<()>>>>,
}

/// Locks a mutex; a panic in another thread leaves only plain numbers.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Session {
    /// Also handles SIGINT and SIGTERM: requests in flight are completed and stored, and no new ones are sent.
    fn new(plan: Plan, endpoint: Endpoint, store: Store, limits: Limits) -> Result<Self, Error> {
        Ok(Self {
            plan,
            endpoint,
            store,
            limits: Mutex::new(limits),
            tally: Mutex::default(),
            start: Instant::now(),
            stop: shutdown::on_signal().map_err(Error::Signal)?,
            asking: Mutex::default(),
        })
    }

    /// Processes `items` concurrently and shows progress. Results are in the order of the items.
    pub(crate) async fn each<I, T, F>(
        &self,
        items: &[I],
        work: impl Fn(usize) -> F,
    ) -> Vec<Result<T, Failure>>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let mut progress = Progress::new(self.plan.command, items.len() as u64);
        let work = &work;
        let mut running = futures::stream::iter(0..items.len())
            .map(|index| async move {
                let stopped = self.stop.is_cancelled();
                (index, if stopped { Err(Failure::Interrupted) } else { work(index).await })
            })
            .buffer_unordered(self.plan.concurrency);
        let mut results: Vec<(usize, Result<T, Failure>)> = Vec::with_capacity(items.len());
        while let Some((index, result)) = running.next().await {
            if let Err(failure) = &result
                && failure.is_final_for_all()
            {
                self.stop.cancel();
            }
            let failed = matches!(&result, Err(failure) if !matches!(failure, Failure::Interrupted));
            lock(&self.tally).failed += u64::from(failed);
            results.push((index, result));
            progress.show(results.len() as u64, || lock(&self.tally).to_string());
        }
        progress.finish();
        results.sort_by_key(|(index, _)| *index);
        results.into_iter().map(|(_, result)| result).collect()
    }

    /// Sends requests until `read` accepts an answer, at most as often as configured. The error of `read` is sent to
    /// the model.
    pub(crate) async fn ask<T>(
        &self,
        question: &Question,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, Failure> {
        let mut messages = question.messages.clone();
        let mut corrections = 0;
        loop {
            let reply = self.reply(&messages, question.sample).await?;
            if let Some(reason) = reply.declined {
                return Err(Failure::Declined { reason });
            }
            let Some(answer) = reply.answer() else {
                return Err(Failure::NoRoom { max_tokens: self.plan.max_tokens });
            };
            let reason = if reply.cut {
                "it was cut off because it was too long: answer more briefly".to_owned()
            } else {
                match read(answer) {
                    Ok(taken) => return Ok(taken),
                    Err(reason) => reason,
                }
            };
            if corrections == self.plan.corrections {
                return Err(Failure::Rules { answers: corrections + 1, reason });
            }
            corrections += 1;
            lock(&self.tally).corrected += 1;
            messages.push(Message::assistant(answer));
            messages.push(Message::user(&format!(
                "That answer cannot be used: {reason}. Answer again, and write nothing but the answer."
            )));
        }
    }

    async fn reply(&self, messages: &[Message], sample: Option<u64>) -> Result<Reply, Failure> {
        let request = Request {
            messages: messages.to_vec(),
            max_tokens: self.plan.max_tokens,
            temperature: self.plan.temperature,
            seed: sample,
        };
        let body = request.body(&self.plan.model, &self.plan.body);
        let key = Key::new(self.plan.command, &body, sample.unwrap_or(0));
        let turn = lock(&self.asking).entry(key).or_default().clone();
        let _turn = turn.lock().await;
        // Earlier versions stored replies without an answer.
        let reply = match self.store.get(key)?.filter(Reply::is_settled) {
            Some(reply) => {
                lock(&self.tally).kept += 1;
                Ok(reply)
            }
            None => self.pay_for(key, &body, request.expected_tokens()).await,
        };
        let mut asking = lock(&self.asking);
        // Keep the entry while other calls wait for the same reply: the map and this call hold two references.
        if Arc::strong_count(&turn) == 2 {
            asking.remove(&key);
        }
        reply
    }

    /// Sends a request with retries and stores the reply. Billed replies without an answer are retried fewer times than
    /// other failures.
    async fn pay_for(&self, key: Key, body: &str, expected_tokens: u64) -> Result<Reply, Failure> {
        let (mut failures, mut paid_for_nothing) = (0, 0);
        loop {
            self.wait_for_turn(expected_tokens).await?;
            let error = match self.endpoint.send(body).await {
                Ok(reply) => {
                    tokio::task::block_in_place(|| self.store.put(key, &reply))?;
                    self.spend(expected_tokens, reply.usage());
                    lock(&self.tally).asked += 1;
                    return Ok(reply);
                }
                Err(error) => error,
            };
            if let Some(usage) = error.usage() {
                paid_for_nothing += 1;
                self.spend(expected_tokens, usage);
            }
            failures += 1;
            let asked_to_wait = match error.remedy() {
                Remedy::Stop => return Err(Failure::Refused(error)),
                Remedy::Skip => return Err(Failure::Endpoint { attempts: failures, source: error }),
                Remedy::Again(wait) => wait.unwrap_or_default(),
            };
            if failures > self.plan.retries
                || paid_for_nothing > PAID_REPEATS
                || asked_to_wait > self.plan.longest_wait
            {
                return Err(Failure::Endpoint { attempts: failures, source: error });
            }
            tracing::debug!("{}: {error}; it will be retried", self.plan.command);
            lock(&self.tally).repeated += 1;
            if !asked_to_wait.is_zero() {
                // Both values are truncated to milliseconds: add two, so that the request is not sent too early.
                let wait_ms = asked_to_wait.as_millis() as u64;
                let until_ms = self.now_ms().saturating_add(wait_ms).saturating_add(2);
                lock(&self.limits).pause(until_ms);
            }
            let wait = wait_ms(self.plan.backoff_ms, failures - 1, key.number());
            self.sleep_until(self.now_ms() + wait).await?;
        }
    }

    /// Corrects the estimated cost of a request and counts its tokens.
    fn spend(&self, expected_tokens: u64, usage: Usage) {
        let tokens = usage.prompt_tokens.saturating_add(usage.completion_tokens);
        if tokens > 0 {
            lock(&self.limits).correct(expected_tokens, tokens);
        }
        lock(&self.tally).spent(usage);
    }

    /// Waits until a request of about `tokens` tokens may be sent.
    async fn wait_for_turn(&self, tokens: u64) -> Result<(), Failure> {
        let mut at_ms = lock(&self.limits).grant(self.now_ms(), tokens);
        loop {
            self.sleep_until(at_ms).await?;
            let later = lock(&self.limits).grant_after_pause(at_ms, self.now_ms(), tokens);
            let Some(later_ms) = later else { return Ok(()) };
            at_ms = later_ms;
        }
    }

    async fn sleep_until(&self, at_ms: u64) -> Result<(), Failure> {
        let wake = self.start + Duration::from_millis(at_ms);
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(Failure::Interrupted),
            () = tokio::time::sleep_until(wake.into()) => Ok(()),
        }
    }

    fn now_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }
}
