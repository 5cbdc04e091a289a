use super::*;

fn state(value: f32) -> Vec<(String, Tensor)> {
    vec![("b".into(), Tensor::from_slice(&[value, 2.0])), ("a".into(), Tensor::from_slice(&[value + 1.0]))]
}

fn numbers(state: &[(String, Tensor)]) -> Vec<f32> {
    state.iter().flat_map(|(_, tensor)| Vec::<f32>::try_from(tensor).unwrap()).collect()
}

fn write(checkpoints: &Checkpoints, step: u64) {
    let metrics = Metrics::from([("loss".into(), step as f64 / 3.0)]);
    checkpoints.write(Step(step), &metrics, &state(step as f32)).unwrap();
}

fn shapes(state: &[(String, Tensor)]) -> Vec<(String, Vec<i64>)> {
    state.iter().map(|(name, tensor)| (name.clone(), tensor.size())).collect()
}

#[test]
fn the_last_two_are_retained_and_the_newest_is_restored() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::open(folder.path(), "cafe", 7).unwrap();
    assert_eq!(checkpoints.latest().unwrap(), None);
    for step in [4, 8, 100_000_000, 12, 12] {
        write(&checkpoints, step);
    }
    let names: Vec<_> =
        checkpoints.list().unwrap().iter().map(|path| path.file_name().unwrap().to_owned()).collect();
    assert_eq!(names, ["00000012", "100000000"]);
    let latest = checkpoints.latest().unwrap().unwrap();
    assert_eq!(latest.next_step, Step(100_000_000));
    let saved = latest.load(shapes(&state(0.0))).unwrap();
    assert_eq!(numbers(&saved.into_iter().collect::<Vec<_>>()), [1e8 + 1.0, 1e8, 2.0]);
}

#[test]
fn a_damaged_checkpoint_is_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::open(folder.path(), "cafe", 7).unwrap();
    write(&checkpoints, 4);
    write(&checkpoints, 8);
    let state = folder.path().join("00000008").join(STATE_FILE);
    let mut bytes = fs::read(&state).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&state, bytes).unwrap();
    let latest = checkpoints.latest().unwrap().unwrap();
    assert_eq!((latest.next_step, latest.metrics["loss"]), (Step(4), 4.0 / 3.0));
    fs::create_dir(folder.path().join("00000009")).unwrap();
    assert_eq!(checkpoints.latest().unwrap().unwrap().next_step, Step(4));
    write(&checkpoints, 8);
    assert_eq!(
        checkpoints.latest().unwrap().unwrap().next_step,
        Step(8),
        "a damaged checkpoint is rewritten"
    );
}

#[test]
fn checkpoints_that_build_upon_a_dropped_version_are_removed() {
    let folder = tempfile::tempdir().unwrap();
    let mut checkpoints = Checkpoints::open(folder.path(), "cafe", 7).unwrap();
    let next = |checkpoints: &Checkpoints| checkpoints.latest().unwrap().map(|latest| latest.next_step.0);
    for step in [4, 8] {
        write(&checkpoints, step);
    }
    checkpoints.forget(vec![8]).unwrap();
    assert_eq!(next(&checkpoints), Some(8), "it holds the state that produces version 8");
    checkpoints.forget(vec![8, 5]).unwrap();
    assert_eq!(next(&checkpoints), Some(4));
    write(&checkpoints, 8);
    checkpoints.forget(vec![8, 5]).unwrap();
    assert_eq!(next(&checkpoints), Some(8), "recomputed since");
    let mut again = Checkpoints::open(folder.path(), "cafe", 7).unwrap();
    again.forget(vec![8, 5, 2]).unwrap();
    assert_eq!(next(&again), None);
}

#[test]
fn a_full_disk_is_reported_as_such() {
    let error = Tensor::write_safetensors(
        &[("a", Tensor::zeros([64], (tch::Kind::Float, tch::Device::Cpu)))],
        "/dev/full",
    );
    let error = not_written(Path::new("/dev/full"), error.unwrap_err());
    assert!(durable::is_full(&error), "{error}");
}

#[test]
fn a_checkpoint_of_another_run_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    write(&Checkpoints::open(folder.path(), "cafe", 7).unwrap(), 4);
    let error = Checkpoints::open(folder.path(), "beef", 7).unwrap().latest().unwrap_err();
    assert!(error.to_string().contains("checkpoint of run cafe, this is run beef"));
}

#[test]
fn a_checkpoint_of_another_policy_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::open(folder.path(), "cafe", 7).unwrap();
    write(&checkpoints, 4);
    let latest = checkpoints.latest().unwrap().unwrap();
    let mut target = state(0.0);
    target[1].1 = Tensor::from_slice(&[0.0_f32; 3]);
    let error = latest.load(shapes(&target)).unwrap_err().to_string();
    assert!(error.contains("holds a [1]: expected a [3]"), "{error}");
    let error = latest.load(shapes(&state(0.0)[1..])).unwrap_err().to_string();
    assert!(error.contains("holds b [2]: expected nothing more"), "{error}");
}
