//! The devices that `CUDA_VISIBLE_DEVICES` selects, by CUDA's rules.

/// The environment variable that restricts and orders the devices of CUDA.
pub const VARIABLE: &str = "CUDA_VISIBLE_DEVICES";

/// A GPU, or an instance of one that is partitioned (MIG).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// Number in `nvidia-smi`; `None` for an instance.
    pub index: Option<u32>,
    /// `GPU-…`, or `MIG-…` for an instance. CUDA selects devices by it in every order of devices.
    pub uuid: String,
    /// "NVIDIA H100 80GB HBM3"
    pub name: String,
    /// `None` where the GPU shares the host's memory, or the driver does not report it.
    pub memory_bytes: Option<u64>,
}

/// Returns the selected devices in their order.
///
/// The first entry decides on the kind of all entries: UUIDs of GPUs (`GPU-…`, unambiguous beginnings suffice), UUIDs
/// of MIG instances (`MIG-…`, looked up by `instance`), or indices. The first entry that selects no device ends the
/// list. A device that is selected twice makes the list empty. Indices follow the order of `nvidia-smi`, as CUDA's do
/// with equal GPUs or `CUDA_DEVICE_ORDER=PCI_BUS_ID`.
///
/// Source: the CUDA programming guide, "CUDA environment variables", and PyTorch's `torch/cuda/__init__.py`, which
/// reproduces the driver's behaviour with invalid lists.
pub(super) fn select(text: &str, installed: &[Gpu], instance: impl Fn(&str) -> Option<Gpu>) -> Vec<Gpu> {
    let (whole, instances) = (text.starts_with("GPU-"), text.starts_with("MIG-"));
    let find = |entry: &str| {
        if whole {
            by_uuid(entry, installed)
        } else if instances {
            entry.starts_with("MIG-").then(|| instance(entry)).flatten()
        } else {
            installed.get(leading_number(entry.trim())?).cloned()
        }
    };
    let mut selected: Vec<Gpu> = Vec::new();
    for gpu in text.split(',').map_while(find) {
        if selected.iter().any(|other| other.uuid == gpu.uuid) {
            return Vec::new();
        }
        selected.push(gpu);
    }
    selected
}

fn by_uuid(entry: &str, installed: &[Gpu]) -> Option<Gpu> {
    if !entry.starts_with("GPU-") {
        return None;
    }
    let mut fitting = installed.iter().filter(|gpu| gpu.uuid.starts_with(entry));
    let first = fitting.next()?;
    fitting.next().is_none().then(|| first.clone())
}

/// Parses the digits at the start, as C's `strtoul`: `1gpu` is 1. `None` for other text and negative numbers.
fn leading_number(entry: &str) -> Option<usize> {
    let entry = entry.strip_prefix('+').unwrap_or(entry);
    let digits = entry.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(entry.len());
    entry[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn installed() -> Vec<Gpu> {
        ["GPU-aa11", "GPU-aa22", "GPU-bb33", "GPU-cc44"]
            .into_iter()
            .zip(0..)
            .map(|(uuid, index)| Gpu {
                index: Some(index),
                uuid: uuid.into(),
                name: "H100".into(),
                memory_bytes: None,
            })
            .collect()
    }

    fn selected(text: &str) -> Vec<String> {
        let instance = |uuid: &str| {
            let known = ["MIG-1", "MIG-2"].contains(&uuid);
            known.then(|| Gpu { index: None, uuid: uuid.into(), name: "H100".into(), memory_bytes: None })
        };
        select(text, &installed(), instance).into_iter().map(|gpu| gpu.uuid).collect()
    }

    #[test]
    fn indices_select_and_order() {
        assert_eq!(selected("2,0"), ["GPU-bb33", "GPU-aa11"]);
        assert_eq!(selected(" 1 , 3"), ["GPU-aa22", "GPU-cc44"]);
        assert_eq!(selected("1gpu,+2"), ["GPU-aa22", "GPU-bb33"]);
    }

    #[test]
    fn the_first_invalid_entry_ends_the_list() {
        assert_eq!(selected("0,4,1"), ["GPU-aa11"]);
        assert_eq!(selected("0,-1,1"), ["GPU-aa11"]);
        assert_eq!(selected("1,GPU-bb33"), ["GPU-aa22"]);
        assert_eq!(selected("GPU-bb33,0"), ["GPU-bb33"]);
        assert_eq!(selected("GPU-bb33,GPU-dd55,GPU-aa11"), ["GPU-bb33"]);
        for nothing in ["", "-1", "NoDevFiles", "9", "99999999999999999999999"] {
            assert!(selected(nothing).is_empty(), "{nothing}");
        }
    }

    #[test]
    fn beginnings_of_uuids_must_be_unambiguous() {
        assert_eq!(selected("GPU-c,GPU-aa2"), ["GPU-cc44", "GPU-aa22"]);
        assert_eq!(selected("GPU-cc44,GPU-aa,GPU-bb33"), ["GPU-cc44"]);
    }

    #[test]
    fn a_repeated_device_makes_the_list_empty() {
        for repeated in ["0,1,0", "GPU-aa11,GPU-bb33,GPU-aa1", "MIG-1,MIG-1"] {
            assert!(selected(repeated).is_empty(), "{repeated}");
        }
    }

    #[test]
    fn instances_are_selected_by_uuid() {
        assert_eq!(selected("MIG-2,MIG-1"), ["MIG-2", "MIG-1"]);
        assert_eq!(selected("MIG-1,MIG-9,MIG-2"), ["MIG-1"]);
    }
}
