//! A proxy between a client and its server, so that a test can break what is between the two, or put
//! another server there.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Where connections lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// To the server at this port.
    To(u16),
    /// To the server at this port, whose answers are lost.
    Mute(u16),
    /// Nowhere: they are closed.
    Closed,
}

/// It goes with this value, and all of its connections.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    way: watch::Sender<Way>,
    _accepting: JoinSet<()>,
}

impl Proxy {
    pub(crate) async fn start(way: Way) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (way, watched) = watch::channel(way);
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let mut way = watched.clone();
                // The way as it is now has been seen: only what follows is a change.
                let now = *way.borrow_and_update();
                connections.spawn(carry(client, now, way));
            }
        });
        Self {
            port,
            way,
            _accepting: accepting,
        }
    }

    /// Connections whose answers were lost, or which led elsewhere, are closed.
    pub(crate) fn lead(&self, way: Way) {
        self.way.send_replace(way);
    }
}

async fn carry(mut client: TcpStream, now: Way, mut way: watch::Receiver<Way>) {
    let (port, mut mute) = match now {
        Way::To(port) => (port, false),
        Way::Mute(port) => (port, true),
        Way::Closed => return,
    };
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await else {
        return;
    };
    let (mut asked, mut answered) = ([0; 16 << 10], [0; 16 << 10]);
    loop {
        tokio::select! {
            biased;
            changed = way.changed() => {
                mute = !mute && changed.is_ok() && *way.borrow_and_update() == Way::Mute(port);
                if !mute {
                    return;
                }
            }
            read = client.read(&mut asked) => match read {
                Ok(bytes @ 1..) if server.write_all(&asked[..bytes]).await.is_ok() => {}
                _ => return,
            },
            read = server.read(&mut answered) => match read {
                Ok(1..) if mute => {}
                Ok(bytes @ 1..) if client.write_all(&answered[..bytes]).await.is_ok() => {}
                _ => return,
            },
        }
    }
}
