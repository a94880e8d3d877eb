//! A layout as bytes: what is stored and gossiped.
//!
//! The description and, for each placement, one row per partition of positions in the list of
//! nodes: one or two bytes a replica. The format's number comes first. What is decoded is never
//! trusted: it is a layout that [`Layout::compute`] could have made, up to balance and zones, or
//! an error.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{ENCODED_BYTES_MAX, Layout, LayoutDecodeError, LayoutSpec, PlacementSpec};

/// Every format ever written, oldest first; a variant is never changed or removed.
#[derive(Serialize, Deserialize)]
enum Encoded {
    V1(Record),
}

/// The first format, which is also what serde shows of a layout.
#[derive(Serialize, Deserialize)]
struct Record {
    spec: LayoutSpec,
    /// Positions in `spec.nodes`: placement by placement, partition by partition, regions in order.
    assignment: Vec<u16>,
}

impl Layout {
    /// The layout as bytes, at most [`ENCODED_BYTES_MAX`]; equal layouts give equal bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // Numbers, strings, lists and maps in memory: postcard refuses none of them.
        postcard::to_stdvec(&Encoded::V1(self.record())).unwrap_or_default()
    }

    /// Reads what [`Layout::encode`] wrote.
    ///
    /// # Errors
    /// The input is never trusted; [`LayoutDecodeError`] says what is wrong with it. Memory is
    /// bounded by a multiple of the input's length, which is at most [`ENCODED_BYTES_MAX`].
    pub fn decode(bytes: &[u8]) -> Result<Layout, LayoutDecodeError> {
        if bytes.len() > ENCODED_BYTES_MAX {
            return Err(LayoutDecodeError::TooLong { bytes: bytes.len() });
        }
        match postcard::take_from_bytes::<Encoded>(bytes) {
            Ok((Encoded::V1(record), [])) => record.check(),
            Ok(_) | Err(_) => Err(LayoutDecodeError::Malformed),
        }
    }

    fn record(&self) -> Record {
        let replicas = self.rings.iter().flat_map(|ring| &ring.replicas);
        // Every replica is one of the nodes, so the default is never used.
        let assignment = replicas.map(|&id| self.position(id).unwrap_or(0) as u16).collect();
        Record { spec: self.spec.clone(), assignment }
    }
}

impl Record {
    fn check(self) -> Result<Layout, LayoutDecodeError> {
        if self.spec != self.spec.clone().canonical() {
            return Err(LayoutDecodeError::NotCanonical);
        }
        self.spec.validate()?;
        let spec = &self.spec;
        let size = |placement: &PlacementSpec| placement.partitions() * placement.width();
        let wanted = spec.placements.iter().map(size).sum();
        let entries = self.assignment.len();
        if entries != wanted {
            return Err(LayoutDecodeError::Length { entries, wanted });
        }
        let mut rest = &self.assignment[..];
        for placement in &spec.placements {
            let rows;
            (rows, rest) = rest.split_at(size(placement));
            // The region of each place in a row.
            let regions: Vec<&str> = placement
                .replication
                .iter()
                .flat_map(|(name, &factor)| std::iter::repeat_n(name.as_str(), factor.into()))
                .collect();
            for (partition, row) in rows.chunks_exact(regions.len()).enumerate() {
                let fits = row.iter().zip(&regions).enumerate().all(|(at, (&node, &region))| {
                    spec.nodes.get(usize::from(node)).is_some_and(|have| have.region == region)
                        && !row[..at].contains(&node)
                });
                if !fits {
                    return Err(LayoutDecodeError::Replica { placement: placement.id, partition });
                }
            }
        }
        Ok(Layout::assemble(self.spec, &self.assignment))
    }
}

impl Serialize for Layout {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.record().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Layout {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Layout, D::Error> {
        Record::deserialize(deserializer)?.check().map_err(serde::de::Error::custom)
    }
}
