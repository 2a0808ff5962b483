// SPDX-License-Identifier: Apache-2.0

//! The echo server a tokio user would write: a task per connection on the current-thread runtime.

use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{signal, SignalKind};

async fn echo(mut connection: TcpStream) -> io::Result<()> {
    connection.set_nodelay(true)?;
    let mut bytes = vec![0u8; 64 * 1024];
    loop {
        let count = connection.read(&mut bytes).await?;
        if count == 0 {
            return Ok(());
        }
        connection.write_all(&bytes[..count]).await?;
    }
}

async fn accept(listener: TcpListener) {
    loop {
        if let Ok((connection, _)) = listener.accept().await {
            tokio::spawn(echo(connection));
        }
    }
}

fn port_from_arguments() -> u16 {
    let arguments: Vec<String> = std::env::args().collect();
    let port = match arguments.as_slice() {
        [_] => Some(0),
        [_, name, value] if name == "--port" => value.parse().ok(),
        _ => None,
    };
    port.unwrap_or_else(|| {
        eprintln!("usage: {} [--port N]", arguments[0]);
        std::process::exit(64)
    })
}

fn main() -> io::Result<()> {
    let port = port_from_arguments();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        println!("listening on 127.0.0.1:{}", listener.local_addr()?.port());
        tokio::spawn(accept(listener));
        terminate.recv().await;
        Ok(())
    })
}
