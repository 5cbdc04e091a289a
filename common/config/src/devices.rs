//! The values of `launch.rollout_device` and `launch.learner_device`.

/// The devices of the processes of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Devices {
    /// The CPU.
    Cpu,
    /// A GPU for each process.
    Cuda,
    /// A GPU for each process on a machine with GPUs, else the CPU.
    Auto,
    /// These GPUs, by their numbers among the visible ones, in the order of processes.
    Listed(Vec<usize>),
}

impl Devices {
    /// Parses `cpu`, `cuda`, `auto`, or a comma-separated list of `cuda:<index>`; `None` for other text.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "cpu" => Some(Self::Cpu),
            "cuda" => Some(Self::Cuda),
            "auto" => Some(Self::Auto),
            _ => text.split(',').map(|entry| index(entry.trim())).collect::<Option<_>>().map(Self::Listed),
        }
    }
}

/// Device numbers of libtorch are small.
fn index(entry: &str) -> Option<usize> {
    entry.strip_prefix("cuda:")?.parse::<u16>().ok().map(usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_one_word_or_a_list() {
        assert_eq!(
            ["cpu", "cuda", "auto"].map(Devices::parse),
            [Some(Devices::Cpu), Some(Devices::Cuda), Some(Devices::Auto)]
        );
        assert_eq!(Devices::parse("cuda:3"), Some(Devices::Listed(vec![3])));
        assert_eq!(Devices::parse("cuda:2, cuda:0"), Some(Devices::Listed(vec![2, 0])));
        for text in ["", "gpu", "cuda:", "cuda:-1", "cuda:0,", "cuda:0,cpu", "0,1", "cuda:70000"] {
            assert_eq!(Devices::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_wrong_device_is_refused_with_the_accepted_ones() {
        let refused = |text: &str| {
            let flag = format!("launch.rollout_device='{text}'").parse().unwrap();
            crate::RunFile::parse("", "test", &[flag]).unwrap_err().to_string()
        };
        let error = refused("gpu");
        assert!(
            error.starts_with("launch.rollout_device is \"gpu\": expected cpu, cuda, auto, cuda:<index>"),
            "{error}"
        );
        let key = "launch.colocate=thread".parse().unwrap();
        let error = crate::RunFile::parse("", "test", &[key]).unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("none") && cause.contains("share"), "{cause}");
    }
}
