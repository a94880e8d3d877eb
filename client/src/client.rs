//! The handle to a cluster.

use std::sync::Arc;

use holm_protocol::admin::ClusterView;
use holm_protocol::ids::{NodeId, RegionId};
use holm_protocol::limits::is_name;

use crate::admin::Admin;
use crate::bucket::Bucket;
use crate::builder::ClientBuilder;
use crate::cluster::Cluster;
use crate::error::{AdminError, BucketError};

/// How often [`Client::bucket`] asks for a bucket it does not know: one that was made a moment ago
/// may not have reached every node.
const BUCKET_ASKS_MAX: u32 = 4;

/// A cluster, as this process sees it. Cheap to clone; all clones share the connections, which
/// close when the last clone, [`Bucket`] and [`Admin`] is dropped.
#[derive(Debug, Clone)]
pub struct Client {
    cluster: Arc<Cluster>,
}

impl Client {
    /// Starts describing a cluster to connect to.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::new()
    }

    pub(crate) fn new(cluster: Arc<Cluster>) -> Client {
        Client { cluster }
    }

    /// A bucket by its name.
    ///
    /// # Errors
    /// [`BucketError::Unknown`] if no node that was asked knows it.
    pub async fn bucket(&self, name: &str) -> Result<Bucket, BucketError> {
        if !is_name(name) {
            return Err(BucketError::Name { name: name.to_owned() });
        }
        for ask in 0..BUCKET_ASKS_MAX {
            if let Some(info) = self.cluster.routing().bucket(name) {
                return Ok(Bucket::new(Arc::clone(&self.cluster), info.clone()));
            }
            if ask > 0 {
                self.cluster.pause(ask).await;
            }
            self.cluster.refresh().await.map_err(BucketError::View)?;
        }
        match self.cluster.routing().bucket(name) {
            Some(info) => Ok(Bucket::new(Arc::clone(&self.cluster), info.clone())),
            None => Err(BucketError::Unknown { name: name.to_owned() }),
        }
    }

    /// Administration: buckets, layouts, status, explanations.
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin::new(Arc::clone(&self.cluster))
    }

    /// Layout and buckets as last heard.
    #[must_use]
    pub fn view(&self) -> Arc<ClusterView> {
        self.cluster.routing().view()
    }

    /// Asks a node for layout and buckets now.
    ///
    /// # Errors
    /// [`AdminError`] if no node answers in time.
    pub async fn refresh(&self) -> Result<Arc<ClusterView>, AdminError> {
        self.cluster.refresh().await?;
        Ok(self.view())
    }

    /// The nodes this client knows of, sorted: those it was given and those of the layout.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeId> {
        self.cluster.routing().node_ids()
    }

    /// The region whose replicas are asked first, if there is a layout.
    #[must_use]
    pub fn region(&self) -> Option<String> {
        self.cluster.routing().home_region().map(str::to_owned)
    }

    /// The name of a region of a [`Receipt`](crate::Receipt).
    #[must_use]
    pub fn region_name(&self, region: RegionId) -> Option<String> {
        self.view().regions.get(usize::from(region.0)).cloned()
    }

    /// Closes the connections and waits until the nodes have heard of it. Calls still under way
    /// end with an error.
    pub async fn close(self) {
        self.cluster.close().await;
    }
}
