//! Administration: buckets, layouts, status, explanations.

use std::sync::Arc;

use holm_protocol::admin::{
    AdminReply, AdminRequest, BucketChange, ClusterView, Explanation, LayoutProposal,
    LayoutSummary, LinkRule, MembershipStatus, NodeStatus, RepairProgress, RepairScope,
};
use holm_protocol::bucket::{BucketInfo, BucketPolicy};
use holm_protocol::ids::NodeId;

use crate::blob::Blob;
use crate::bucket::Bucket;
use crate::cluster::Cluster;
use crate::error::AdminError;

/// Administration calls. All but [`Admin::view`] need a certificate with the role `admin`.
///
/// What changes something is repeated only if nothing happened; if that is not known, the error
/// is [`AdminError::Unknown`].
#[derive(Debug, Clone)]
pub struct Admin {
    cluster: Arc<Cluster>,
}

impl Admin {
    pub(crate) fn new(cluster: Arc<Cluster>) -> Admin {
        Admin { cluster }
    }

    /// Layout and buckets, asked for now. `layout_version` is 0 while there is no layout.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn view(&self) -> Result<ClusterView, AdminError> {
        self.cluster.refresh().await?;
        Ok((*self.cluster.routing().view()).clone())
    }

    /// Layout and buckets as one node knows them. What this client routes by stays as it is.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn view_on(&self, node: NodeId) -> Result<ClusterView, AdminError> {
        match self.request(Some(node), AdminRequest::View).await? {
            (_, AdminReply::View(view)) => Ok(view),
            (node, _) => Err(AdminError::UnexpectedReply { node }),
        }
    }

    /// One node's own state.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn status(&self, node: NodeId) -> Result<NodeStatus, AdminError> {
        match self.request(Some(node), AdminRequest::Status).await? {
            (_, AdminReply::Status(status)) => Ok(status),
            (node, _) => Err(AdminError::UnexpectedReply { node }),
        }
    }

    /// What one node thinks of each other node.
    ///
    /// # Errors
    /// [`AdminError`]; refused as malformed by a node of a version before this request.
    pub async fn members(&self, node: NodeId) -> Result<MembershipStatus, AdminError> {
        match self.request(Some(node), AdminRequest::Members).await? {
            (_, AdminReply::Members(status)) => Ok(status),
            (node, _) => Err(AdminError::UnexpectedReply { node }),
        }
    }

    /// Has one node verify what it holds, now.
    ///
    /// # Errors
    /// [`AdminError`]; refused as malformed by a node of a version before this request.
    pub async fn repair(
        &self,
        node: NodeId,
        scope: RepairScope,
    ) -> Result<RepairProgress, AdminError> {
        self.repair_request(node, AdminRequest::Repair(scope)).await
    }

    /// How far one node has come with that.
    ///
    /// # Errors
    /// As [`Admin::repair`].
    pub async fn repair_progress(&self, node: NodeId) -> Result<RepairProgress, AdminError> {
        self.repair_request(node, AdminRequest::RepairProgress).await
    }

    async fn repair_request(
        &self,
        node: NodeId,
        request: AdminRequest,
    ) -> Result<RepairProgress, AdminError> {
        match self.request(Some(node), request).await? {
            (_, AdminReply::Repair(progress)) => Ok(progress),
            (node, _) => Err(AdminError::UnexpectedReply { node }),
        }
    }

    /// Makes a bucket, which must not exist yet. Other nodes learn of it within moments.
    ///
    /// # Errors
    /// [`AdminError`]; refused with
    /// [`RequestError::BucketRefused`](crate::RequestError::BucketRefused) if it exists or the
    /// policy is not possible.
    pub async fn create_bucket(
        &self,
        name: &str,
        policy: BucketPolicy,
    ) -> Result<BucketInfo, AdminError> {
        self.change_bucket(name, policy, true).await
    }

    /// Changes the policy of a bucket, which must exist.
    ///
    /// # Errors
    /// As [`Admin::create_bucket`].
    pub async fn set_bucket(
        &self,
        name: &str,
        policy: BucketPolicy,
    ) -> Result<BucketInfo, AdminError> {
        self.change_bucket(name, policy, false).await
    }

    async fn change_bucket(
        &self,
        name: &str,
        policy: BucketPolicy,
        create: bool,
    ) -> Result<BucketInfo, AdminError> {
        policy.check(name).map_err(|error| AdminError::Policy { error })?;
        let change = BucketChange { name: name.to_owned(), policy, create };
        let (node, reply) = self.request(None, AdminRequest::Bucket(change)).await?;
        let AdminReply::Bucket(info) = reply else {
            return Err(AdminError::UnexpectedReply { node });
        };
        // The change is done; a view that cannot be had now comes with the next refresh.
        if let Ok(view) = self.view_on(node).await {
            self.cluster.adopt(view);
        }
        Ok(info)
    }

    /// What this layout would be, without applying it.
    ///
    /// # Errors
    /// [`AdminError`]; refused with
    /// [`RequestError::LayoutRefused`](crate::RequestError::LayoutRefused) if it is not possible.
    pub async fn plan_layout(&self, proposal: LayoutProposal) -> Result<LayoutSummary, AdminError> {
        match self.request(None, AdminRequest::PlanLayout(proposal)).await? {
            (_, AdminReply::Layout(summary)) => Ok(summary),
            (node, _) => Err(AdminError::UnexpectedReply { node }),
        }
    }

    /// Makes this the cluster's layout, through one node that all operators should agree on.
    ///
    /// # Errors
    /// As [`Admin::plan_layout`].
    pub async fn apply_layout(
        &self,
        node: NodeId,
        proposal: LayoutProposal,
    ) -> Result<LayoutSummary, AdminError> {
        match self.request(Some(node), AdminRequest::ApplyLayout(proposal)).await? {
            (_, AdminReply::Layout(summary)) => {
                if let Ok(view) = self.view_on(node).await {
                    self.cluster.adopt(view);
                }
                Ok(summary)
            }
            (node, _) => Err(AdminError::UnexpectedReply { node }),
        }
    }

    /// Where a key lives and what each of its replicas holds.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn explain(
        &self,
        bucket: &Bucket,
        key: impl Into<Blob>,
    ) -> Result<Explanation, AdminError> {
        let request = AdminRequest::Explain { bucket: bucket.id(), key: key.into().0 };
        match self.request(None, request).await? {
            (_, AdminReply::Explain(explanation)) => Ok(explanation),
            (node, _) => Err(AdminError::UnexpectedReply { node }),
        }
    }

    /// Sets what the development switch at one node's socket does to packets.
    ///
    /// # Errors
    /// [`AdminError`]; refused with
    /// [`RequestError::NotDevelopment`](crate::RequestError::NotDevelopment) outside development
    /// mode.
    pub async fn links(&self, node: NodeId, rules: Vec<LinkRule>) -> Result<(), AdminError> {
        match self.request(Some(node), AdminRequest::Links(rules)).await? {
            (_, AdminReply::Done) => Ok(()),
            (node, _) => Err(AdminError::UnexpectedReply { node }),
        }
    }

    /// Any administration request, to one node or to whichever can serve it, and who answered.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn request(
        &self,
        node: Option<NodeId>,
        request: AdminRequest,
    ) -> Result<(NodeId, AdminReply), AdminError> {
        self.cluster.admin(node, request).await
    }
}
