//! Orders to a running demo: one line of JSON there, one back, over loopback.
//!
//! An order carries the token from the state file, which only its owner can read. Orders are
//! carried out one after the other.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;

use super::cluster::Cluster;
use super::home::{Control, State};
use crate::failure::{Failure, Status};

/// The longest line, bytes: orders and answers are a few words.
const LINE_BYTES_MAX: u64 = 64 << 10;
/// How long the other end may take to send or take its line.
const LINE_PATIENCE: Duration = Duration::from_secs(5);
/// How long an order may take beyond the caller's own timeout: a node has to start.
const ORDER_PATIENCE: Duration = Duration::from_secs(60);

/// What can be ordered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Order {
    /// Cut one region off from another, or from all others.
    Cut {
        /// A region.
        a: String,
        /// The other one; none: all.
        b: Option<String>,
    },
    /// Undo all cuts.
    Heal,
    /// Kill a node.
    Kill {
        /// Its id.
        node: u64,
    },
    /// Start it again.
    Start {
        /// Its id.
        node: u64,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct Letter {
    token: String,
    order: Order,
}

/// What came of an order: what was done, or why it was not.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Done(String),
    Refused { status: u8, what: String, hint: String },
}

/// Listens for orders.
#[derive(Debug)]
pub(super) struct Desk {
    listener: TcpListener,
    control: Control,
}

impl Desk {
    /// Opens the port and draws the token.
    ///
    /// # Errors
    /// There is no port.
    pub(super) async fn open() -> Result<Desk, Failure> {
        let failed = |error: std::io::Error| {
            Failure::failed(format!("cannot listen on loopback: {error}"), "is there a free port?")
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        let token = format!("{:032x}", rand::random::<u128>());
        Ok(Desk { listener, control: Control { addr, token } })
    }

    /// Where orders go, for the state file.
    pub(super) fn control(&self) -> Control {
        self.control.clone()
    }

    /// Carries out orders for as long as it is polled. A caller that breaks off harms only itself.
    pub(super) async fn serve(&self, cluster: &Mutex<Cluster>) -> std::convert::Infallible {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let _ = self.answer(stream, cluster).await;
                }
                // Out of file descriptors, most likely: better than spinning.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    async fn answer(&self, stream: TcpStream, cluster: &Mutex<Cluster>) -> std::io::Result<()> {
        let (read, mut write) = stream.into_split();
        let mut line = String::new();
        let mut reader = BufReader::new(read.take(LINE_BYTES_MAX));
        tokio::time::timeout(LINE_PATIENCE, reader.read_line(&mut line)).await??;
        let done = match serde_json::from_str::<Letter>(&line) {
            Ok(letter) if letter.token == self.control.token => {
                cluster.lock().await.obey(letter.order).await
            }
            _ => {
                Err(Failure::failed("the order is not for this demo", "is it of another version?"))
            }
        };
        let answer = match done {
            Ok(done) => Answer::Done(done),
            Err(failure) => Answer::Refused {
                status: failure.status as u8,
                what: failure.what,
                hint: failure.hint,
            },
        };
        let mut line = serde_json::to_vec(&answer)?;
        line.push(b'\n');
        tokio::time::timeout(LINE_PATIENCE, write.write_all(&line)).await?
    }
}

/// Gives an order to a running demo and returns what was done.
///
/// # Errors
/// The demo does not listen yet, is gone, or refuses.
pub(super) async fn send(
    state: &State,
    order: Order,
    patience: Duration,
) -> Result<String, Failure> {
    let Some(control) = &state.control else {
        return Err(Failure::unavailable("the demo is still starting", "repeat it in a moment"));
    };
    let gone = |error: std::io::Error| {
        Failure::new(
            Status::Unknown,
            format!("the demo did not answer: {error}"),
            "look at the terminal where it runs",
        )
    };
    let talk = async {
        let mut stream = TcpStream::connect(control.addr).await?;
        let letter = Letter { token: control.token.clone(), order };
        let mut line = serde_json::to_vec(&letter)?;
        line.push(b'\n');
        stream.write_all(&line).await?;
        let mut answer = String::new();
        BufReader::new(stream.take(LINE_BYTES_MAX)).read_line(&mut answer).await?;
        Ok(serde_json::from_str::<Answer>(&answer)?)
    };
    let talked = tokio::time::timeout(patience + ORDER_PATIENCE, talk).await;
    match talked.unwrap_or_else(|elapsed| Err(elapsed.into())).map_err(gone)? {
        Answer::Done(done) => Ok(done),
        Answer::Refused { status, what, hint } => {
            let known = [Status::Usage, Status::NotFound, Status::Unknown, Status::Unavailable];
            let status = known.into_iter().find(|known| *known as u8 == status);
            Err(Failure::new(status.unwrap_or(Status::Failed), what, hint))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: orders read back, whatever they hold. Method: each of them.
    #[test]
    fn orders_read_back() {
        for order in [
            Order::Cut { a: "us\n".into(), b: None },
            Order::Cut { a: "us".into(), b: Some("eu".into()) },
            Order::Heal,
            Order::Kill { node: 1 },
            Order::Start { node: 2 },
        ] {
            let line = serde_json::to_string(&Letter { token: "t".into(), order: order.clone() });
            let line = line.unwrap();
            assert!(!line.contains('\n'));
            assert_eq!(serde_json::from_str::<Letter>(&line).unwrap().order, order);
        }
    }
}
