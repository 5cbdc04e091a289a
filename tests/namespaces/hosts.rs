//! Simulated hosts on this machine: network namespaces with one address each, on one bridge.

use std::process::Command;
use std::thread;

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, setns};
use podium_tests::Process;

/// Network namespaces, deleted on drop with all their interfaces.
pub(crate) struct Hosts {
    prefix: String,
    count: u8,
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output().context(
        "cannot run ip: these tests require iproute2 (Debian, Ubuntu: apt-get install iproute2) and root",
    )?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {}: {}", arguments.join(" "), said.trim());
    Ok(())
}

impl Hosts {
    /// Creates `count` hosts on a switch that is a namespace as well, so that they are isolated. `name` distinguishes
    /// concurrent tests.
    pub(crate) fn new(name: &str, count: u8) -> Result<Self> {
        let hosts = Self { prefix: format!("podium-{name}-{}", std::process::id()), count };
        let switch = hosts.switch();
        ip(&["netns", "add", &switch])?;
        ip(&["-n", &switch, "link", "add", "bridge", "type", "bridge"])?;
        ip(&["-n", &switch, "link", "set", "bridge", "up"])?;
        for host in 0..count {
            let (namespace, port) = (hosts.namespace(host), format!("port{host}"));
            ip(&["netns", "add", &namespace])?;
            let (near, far) = (["link", "add", &port, "netns", &switch], ["netns", &namespace]);
            ip(&[&near[..], &["type", "veth", "peer", "name", "eth0"], &far].concat())?;
            ip(&["-n", &switch, "link", "set", &port, "master", "bridge", "up"])?;
            ip(&["-n", &namespace, "address", "add", &format!("{}/24", Self::address(host)), "dev", "eth0"])?;
            for interface in ["eth0", "lo"] {
                ip(&["-n", &namespace, "link", "set", interface, "up"])?;
            }
        }
        Ok(hosts)
    }

    fn switch(&self) -> String {
        format!("{}-switch", self.prefix)
    }

    fn namespace(&self, host: u8) -> String {
        format!("{}-{host}", self.prefix)
    }

    /// The host's address; the same in every test, since tests are isolated from each other.
    pub(crate) fn address(host: u8) -> String {
        format!("10.77.0.{}", host + 1)
    }

    /// A command that runs a binary on a host.
    pub(crate) fn command(&self, host: u8, binary: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("ip");
        let program = Process::prepare(binary, &[]);
        command.args(["netns", "exec", &self.namespace(host)]).arg(program.get_program()).args(arguments);
        command
    }

    /// Disconnects a host's link, or connects it again.
    pub(crate) fn link(&self, host: u8, up: bool) -> Result<()> {
        let state = if up { "up" } else { "down" };
        ip(&["-n", &self.switch(), "link", "set", &format!("port{host}"), state])
    }

    /// Runs `work` in a host's network: its connections start there.
    pub(crate) fn on<T: Send>(&self, host: u8, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let path = format!("/run/netns/{}", self.namespace(host));
        // A namespace belongs to a thread: this one enters it and ends.
        let enter_and_work = || {
            let namespace = std::fs::File::open(&path).with_context(|| path.clone())?;
            setns(&namespace, CloneFlags::CLONE_NEWNET)?;
            work()
        };
        thread::scope(|scope| scope.spawn(enter_and_work).join().expect("the work does not panic"))
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        let hosts = (0..self.count).map(|host| self.namespace(host));
        for namespace in hosts.chain([self.switch()]) {
            // A namespace that was not created yet cannot be deleted.
            let _ = ip(&["netns", "del", &namespace]);
        }
    }
}
