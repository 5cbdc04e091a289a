//! The processes of the run that can be scraped, for Prometheus' HTTP service discovery (`GET /targets`).
//!
//! The actor updates the list. A request renders the current one, so a scrape never waits.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

use podium_service::metrics_server::{Page, at_host};
use serde_json::{Value, json};

/// Path of the list, beside `/metrics`.
pub const PATH: &str = "/targets";

/// A process and the address of its metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// host:port; an unspecified host is this host.
    pub address: String,
    /// `coordinator`, `worker`, `learner`, or `learner+worker` for a process that is both.
    pub role: &'static str,
    /// Name of the process: `coordinator`, `worker-3f0c92aa`, `learner-0`.
    pub process: String,
}

#[derive(Debug, Default)]
struct Known {
    run: String,
    own: Option<String>,
    others: Vec<Target>,
}

/// The list of processes. All clones share it.
#[derive(Debug, Clone, Default)]
pub struct Discovery(Arc<RwLock<Known>>);

impl Discovery {
    /// Sets the address of this process.
    pub fn set_own(&self, address: String) {
        self.change(|known| known.own = Some(address));
    }

    /// Sets the other processes of the run.
    pub fn set_others(&self, run: &str, others: Vec<Target>) {
        let others = joined(others);
        self.change(|known| {
            run.clone_into(&mut known.run);
            known.others = others;
        });
    }

    /// Renders the list for Prometheus; `host`: the address of this host, for addresses without one.
    pub fn render(&self, host: IpAddr) -> String {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let own = known.own.clone().map(|address| Target {
            address,
            role: "coordinator",
            process: "coordinator".to_owned(),
        });
        let group = |target: &Target| {
            let address = at_host(&target.address, host);
            json!({
                "targets": [address],
                "labels": {"run": known.run, "role": target.role, "process": target.process},
            })
        };
        Value::from(own.iter().chain(&known.others).map(group).collect::<Vec<_>>()).to_string()
    }

    /// Returns the page that serves the list.
    pub fn page(&self) -> Page {
        let discovery = self.clone();
        Page { path: PATH, render: Arc::new(move |host| discovery.render(host)) }
    }

    fn change(&self, change: impl FnOnce(&mut Known)) {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Joins a worker and a rank that announced the same address: they are one process, which must be scraped once.
fn joined(targets: Vec<Target>) -> Vec<Target> {
    let mut joined: Vec<Target> = Vec::new();
    for target in targets {
        let is_same = |other: &&mut Target| {
            other.address == target.address && other.role == "worker" && target.role == "learner"
        };
        match joined.iter_mut().find(is_same) {
            Some(worker) => {
                worker.role = "learner+worker";
                worker.process = format!("{}+{}", target.process, worker.process);
            }
            None => joined.push(target),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_two_roles_is_listed_once() {
        let target = |address: &str, role, process: &str| Target {
            address: address.into(),
            role,
            process: process.into(),
        };
        let listed = joined(vec![
            target("host:1", "worker", "worker-a"),
            target("host:2", "worker", "worker-b"),
            target("host:2", "learner", "learner-0"),
        ]);
        assert_eq!(
            listed,
            [
                target("host:1", "worker", "worker-a"),
                target("host:2", "learner+worker", "learner-0+worker-b"),
            ]
        );
    }

    #[test]
    fn the_list_has_every_process_under_an_address_that_the_client_can_reach() {
        let discovery = Discovery::default();
        let trainer: IpAddr = "10.0.0.1".parse().unwrap();
        assert_eq!(discovery.render(trainer), "[]");
        let target = |address: &str, process: &str| Target {
            address: address.into(),
            role: "worker",
            process: process.into(),
        };
        discovery.set_own("0.0.0.0:9100".into());
        discovery.set_others("demo", vec![target("10.0.0.2:1", "worker-a"), target("0.0.0.0:2", "worker-b")]);
        let listed: Value = serde_json::from_str(&discovery.render(trainer)).unwrap();
        let labels = |role: &str, process: &str| json!({"run": "demo", "role": role, "process": process});
        let expected = json!([
            {"targets": ["10.0.0.1:9100"], "labels": labels("coordinator", "coordinator")},
            {"targets": ["10.0.0.2:1"], "labels": labels("worker", "worker-a")},
            {"targets": ["10.0.0.1:2"], "labels": labels("worker", "worker-b")},
        ]);
        assert_eq!(listed, expected);
        discovery.set_others("demo", vec![]);
        assert!(!discovery.render(trainer).contains("worker"));
    }
}
