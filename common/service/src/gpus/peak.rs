//! Speeds of NVIDIA's GPUs, by name: the driver does not report them.

use super::visible::Gpu;

/// Dense bfloat16 operations per second with float32 sums, by words of the name that NVML reports. Source: NVIDIA's data
/// sheets, where values with sparsity are halved. The first match applies.
const PEAKS: [(&str, f64); 18] = [
    ("GB300", 2.5e15),
    ("GB200", 2.5e15),
    ("B300", 2.25e15),
    ("B200", 2.25e15),
    ("GH200", 989e12),
    ("H200 NVL", 835e12),
    ("H200", 989e12),
    ("H100 PCIe", 756e12),
    ("H100 NVL", 835e12),
    ("H100", 989e12),
    ("H20", 148e12),
    ("A100", 312e12),
    ("L40S", 362e12),
    ("L40", 181e12),
    ("L4", 121e12),
    ("A40", 150e12),
    ("A30", 165e12),
    ("A10", 125e12),
];

/// Returns the bfloat16 operations per second of a GPU; `None` for an instance of a partitioned GPU, and for a GPU whose
/// data sheet is not known here.
pub(super) fn peak(gpu: &Gpu) -> Option<f64> {
    gpu.index.and_then(|_| of_name(&gpu.name))
}

fn of_name(name: &str) -> Option<f64> {
    let words: Vec<&str> = name.split([' ', '-']).collect();
    let matches = |model: &str| model.split(' ').all(|word| words.contains(&word));
    PEAKS.iter().find(|(model, _)| matches(model)).map(|(_, peak)| *peak)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_driver_are_found() {
        for (name, peak) in [
            ("NVIDIA H100 80GB HBM3", Some(989e12)),
            ("NVIDIA H100 PCIe", Some(756e12)),
            ("NVIDIA H200", Some(989e12)),
            ("NVIDIA A100-SXM4-80GB", Some(312e12)),
            ("NVIDIA L40S", Some(362e12)),
            ("NVIDIA L40", Some(181e12)),
            ("NVIDIA L4", Some(121e12)),
            ("NVIDIA A100-PCIE-40GB", Some(312e12)),
            ("NVIDIA H100 NVL", Some(835e12)),
            ("NVIDIA GH200 480GB", Some(989e12)),
            ("NVIDIA GeForce RTX 4090", None),
            ("NVIDIA A10G", None),
            ("NVIDIA RTX A4000", None),
            ("NVIDIA RTX A1000", None),
        ] {
            assert_eq!(of_name(name), peak, "{name}");
        }
    }
}
