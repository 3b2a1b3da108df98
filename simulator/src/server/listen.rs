//! The exchange on a TLS port.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use anyhow::Context;
use axum_server::Handle;
use axum_server::accept::NoDelayAcceptor;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use serde_json::json;

use super::clock::Clock;
use super::{Options, Simulator};
use crate::data_dir::DataDir;

/// Time that open connections get after SIGTERM.
const GRACE: Duration = Duration::from_millis(300);

/// Serves until SIGTERM or SIGINT. Prints one line, `{"listening":"host:port"}`, as soon as it listens.
///
/// # Errors
/// When the data directory is not usable or the address cannot be bound.
pub async fn serve(data_dir: &DataDir, listen: SocketAddr, options: &Options, clock: Clock) -> anyhow::Result<()> {
    let accounts = data_dir.accounts()?;
    let simulator = Simulator::start(&accounts, data_dir.admin_token()?, options, clock).map_err(anyhow::Error::msg)?;
    let tls = RustlsConfig::from_pem_file(data_dir.path("server.crt"), data_dir.path("server.key"))
        .await
        .context("server.crt or server.key in the data directory cannot be used")?;
    let listener = TcpListener::bind(listen).with_context(|| format!("cannot listen on {listen}"))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let handle = Handle::new();
    tokio::spawn(shut_down_on_signal(handle.clone()));
    println!("{}", json!({"listening": address.to_string()}));
    tracing::info!(%address, portfolios = accounts.portfolios.len(), "serving");
    axum_server::from_tcp(listener)?
        .acceptor(RustlsAcceptor::new(tls).acceptor(NoDelayAcceptor::new()))
        .handle(handle)
        .serve(simulator.router().into_make_service_with_connect_info::<SocketAddr>())
        .await
        .context("the server ended")
}

async fn shut_down_on_signal(handle: Handle<SocketAddr>) {
    use tokio::signal::unix::{SignalKind, signal};
    match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        _ => tracing::error!("cannot listen for signals; the exchange ends at once"),
    }
    tracing::info!("ending");
    handle.graceful_shutdown(Some(GRACE));
}
