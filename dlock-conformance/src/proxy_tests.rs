use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// A server that answers each byte with itself, and tells all that it received.
async fn echo() -> (String, mpsc::UnboundedReceiver<u8>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (sender, received) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let sender = sender.clone();
            tokio::spawn(async move {
                while let Ok(byte) = stream.read_u8().await {
                    let _ = sender.send(byte);
                    if stream.write_u8(byte).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, received)
}

async fn soon<T>(future: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(Duration::from_millis(50), future)
        .await
        .ok()
}

async fn set_up() -> (Proxy, TcpStream, mpsc::UnboundedReceiver<u8>) {
    let (store, received) = echo().await;
    let proxy = Proxy::start(store).await.unwrap();
    let client = TcpStream::connect(proxy.address()).await.unwrap();
    (proxy, client, received)
}

#[tokio::test]
async fn a_cut_in_one_direction_loses_that_direction_and_then_resets() {
    let (proxy, mut client, mut received) = set_up().await;
    client.write_u8(1).await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), 1);
    assert_eq!(received.recv().await, Some(1));

    proxy.set(Condition::CutFromStore);
    client.write_u8(2).await.unwrap();
    assert_eq!(received.recv().await, Some(2));
    assert!(soon(client.read_u8()).await.is_none());
    proxy.set(Condition::Clear);
    assert!(
        client.read_u8().await.is_err(),
        "a stream with a hole is reset"
    );

    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    proxy.set(Condition::CutToStore);
    client.write_u8(3).await.unwrap();
    assert!(soon(received.recv()).await.is_none());
    proxy.set(Condition::Clear);
    assert!(client.read_u8().await.is_err());
    assert!(soon(received.recv()).await.is_none(), "it was lost");
}

#[tokio::test]
async fn what_is_held_arrives_after_its_sender_has_gone() {
    let (proxy, mut client, mut received) = set_up().await;
    proxy.set(Condition::Held);
    client.write_u8(1).await.unwrap();
    while proxy.kept() == 0 {
        tokio::task::yield_now().await;
    }
    proxy.set(Condition::Clear);
    client.write_u8(2).await.unwrap();
    drop(client);
    let mut other = TcpStream::connect(proxy.address()).await.unwrap();
    other.write_u8(9).await.unwrap();
    assert_eq!(received.recv().await, Some(9), "a new connection passes");
    assert!(soon(received.recv()).await.is_none());
    proxy.deliver();
    assert_eq!(received.recv().await, Some(1));
    assert_eq!(received.recv().await, Some(2));
}

#[tokio::test]
async fn what_is_held_keeps_its_distance_in_time() {
    let (proxy, mut client, mut received) = set_up().await;
    proxy.set(Condition::Held);
    let distance = Duration::from_millis(80);
    client.write_u8(1).await.unwrap();
    while proxy.kept() == 0 {
        tokio::task::yield_now().await;
    }
    proxy.set(Condition::Clear);
    tokio::time::sleep(distance).await;
    client.write_u8(2).await.unwrap();
    tokio::time::sleep(distance).await;
    let start = Instant::now();
    proxy.deliver();
    assert_eq!(received.recv().await, Some(1));
    assert_eq!(received.recv().await, Some(2));
    // The clocks of timers are coarse.
    assert!(start.elapsed() > distance / 2, "{:?}", start.elapsed());
    client.write_u8(3).await.unwrap();
    assert_eq!(
        received.recv().await,
        Some(3),
        "what comes later is not late"
    );
}

#[tokio::test]
async fn it_delays_each_direction_and_refuses() {
    let (proxy, mut client, mut received) = set_up().await;
    let from_store = Duration::from_millis(80);
    proxy.set(Condition::Slow {
        to_store: Duration::ZERO,
        from_store,
    });
    let start = Instant::now();
    client.write_u8(1).await.unwrap();
    assert_eq!(received.recv().await, Some(1));
    assert_eq!(client.read_u8().await.unwrap(), 1);
    assert!(start.elapsed() >= from_store);

    proxy.set(Condition::Refused);
    assert!(client.read_u8().await.is_err());
    let mut refused = TcpStream::connect(proxy.address()).await.unwrap();
    assert!(refused.read_u8().await.is_err());
}
