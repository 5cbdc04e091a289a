//! The address at which the other ranks connect to rank 0.

use std::net::TcpListener;

use podium_service::advertise;

use super::error::Error;
use super::options::Options;
use crate::collective::star;

/// The listener of rank 0 for the other ranks.
pub(super) struct Gate {
    pub(super) listener: TcpListener,
    /// The advertised host:port.
    pub(super) address: String,
}

impl Gate {
    /// Opens rank 0's listener, if there are other ranks.
    pub(super) fn open(options: &Options) -> Result<Option<Self>, Error> {
        if options.rank != 0 || options.world_size == 1 {
            return Ok(None);
        }
        let address = &options.collective_listen;
        let failed = |source| star::ConnectError::Address { address: address.clone(), source };
        let listener = TcpListener::bind(address).map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let address = advertise::address(bound, options.collective_advertise.as_deref())?;
        Ok(Some(Self { listener, address }))
    }
}
