//! A fleetd, an etcd, or something quite different answers fleetctl with any bytes.

use std::io;
use std::sync::Arc;

use fleet_api::client::{ByteStream, Client, Dial, Dialing, Endpoint, Error};
use fleet_api::v1::Unit;
use fleet_api::v2::{BatchRequest, MachineChange, WaitFor, WaitRequest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Bytes for each connection, whatever is asked. Every call ends, in an answer or an error that
/// says something.
pub(crate) fn client(data: &[u8]) {
    let Some((which, bytes)) = data.split_first() else {
        return;
    };
    call(*which, bytes.to_vec());
}

/// Says the same to everybody, and hangs up.
struct Parrot(Arc<[u8]>);

impl Dial for Parrot {
    fn dial(&self) -> Dialing<'_> {
        let words = Arc::clone(&self.0);
        Box::pin(async move {
            let (client, mut server) = tokio::io::duplex(64 << 10);
            tokio::spawn(async move {
                // It hears the beginning of a request first, so that its answer is one.
                let mut heard = [0; 1024];
                let _ = server.read(&mut heard).await;
                let _ = server.write_all(&words).await;
            });
            Ok(Box::new(client) as Box<dyn ByteStream>)
        })
    }

    fn describe(&self) -> String {
        "dial unix /run/fleet.sock".to_owned()
    }

    fn explain(&self, _: &io::Error) -> Option<fleet_api::client::NoWay> {
        None
    }
}

/// One of fleetctl's requests.
pub(crate) fn call(which: u8, answer: Vec<u8>) {
    super::run_paused(async {
        let endpoint = Endpoint::parse("unix:///run/fleet.sock").expect("it is one");
        let client = Client::with_dial(endpoint, Arc::new(Parrot(answer.into())));
        let outcome = match which % 14 {
            0 => client.machines().await.map(drop),
            1 => client.units().await.map(drop),
            2 => client.states().await.map(drop),
            3 => client.unit("a.service").await.map(drop),
            4 => client
                .put_unit("a.service", &Unit::default())
                .await
                .map(drop),
            5 => client.set_desired_state("a.service", "launched").await,
            6 => client.unit_views().await.map(drop),
            7 => client.machine_views().await.map(drop),
            8 => client.unit_view("a.service").await.map(drop),
            9 => client.units_of_machine("m1").await.map(drop),
            10 => client
                .change_machine("m1", &MachineChange::default())
                .await
                .map(drop),
            11 => client.batch(&BatchRequest::default()).await.map(drop),
            12 => match client.registry("/_coreos.com/fleet/").await {
                Ok(_) => Ok(()),
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    Ok(())
                }
            },
            _ => wait(&client).await,
        };
        if let Err(error) = outcome {
            assert!(!error.to_string().is_empty() && !error.original_form().is_empty());
            let _ = (error.code(), error.store_trouble(), error.is_not_found());
        }
        let _ = client.take_warnings();
    });
}

async fn wait(client: &Client) -> Result<(), Error> {
    let request = WaitRequest {
        units: vec![WaitFor {
            name: "a.service".to_owned(),
            generation: 1,
        }],
    };
    let mut lines = client.wait(&request).await?;
    while lines.next().await?.is_some() {}
    Ok(())
}
