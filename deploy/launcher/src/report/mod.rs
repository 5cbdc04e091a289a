//! stub
use crate::run_folder::RunFolder;
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Write(#[from] podium_runtime::durable::Error),
}
pub(crate) fn write(_folder: &RunFolder) -> Result<(), Error> {
    Ok(())
}
