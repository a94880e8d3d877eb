//! A shopping cart that survives concurrent writers: siblings are merged, nothing is lost.
//!
//! ```text
//! cargo run -p holm-client --example cart -- demo/cluster.toml alice tea
//! ```

use std::collections::BTreeMap;
use std::error::Error;

use holm_client::{BucketPolicy, Client, RequestError, Sibling, Update, Updated};

type Cart = BTreeMap<String, u64>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(file), Some(who), Some(what)) = (args.next(), args.next(), args.next()) else {
        return Err("usage: cart CLUSTER_FILE WHO WHAT".into());
    };
    let client = Client::builder().cluster_file(file)?.connect().await?;
    if let Err(error) = client.admin().create_bucket("carts", BucketPolicy::default()).await {
        // Somebody made it before: fine.
        if !matches!(error.refusal(), Some(RequestError::BucketRefused { .. })) {
            return Err(error.into());
        }
    }
    let carts = client.bucket("carts").await?;
    let updated = carts
        .update(&who, |siblings| {
            let mut cart = merge(siblings);
            *cart.entry(what.clone()).or_default() += 1;
            // A map of texts and numbers is always JSON.
            serde_json::to_vec(&cart).map_or(Update::Keep, Update::put)
        })
        .await?;
    if let Updated::Written(written) = updated {
        let replicas = written.receipt().replicas.iter().map(|r| r.node.to_string());
        println!("stored on {}", replicas.collect::<Vec<_>>().join(", "));
    }
    let got = carts.get_json::<Cart>(&who).await?;
    println!("{} has {:?}", who, got.values());
    client.close().await;
    Ok(())
}

/// Per item the most that any concurrent writer put there.
fn merge(siblings: &[Sibling]) -> Cart {
    let mut merged = Cart::new();
    for sibling in siblings {
        let cart: Cart = serde_json::from_slice(&sibling.value).unwrap_or_default();
        for (item, count) in cart {
            let most = merged.entry(item).or_default();
            *most = count.max(*most);
        }
    }
    merged
}
