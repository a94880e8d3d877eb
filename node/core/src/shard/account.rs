//! What a replica knows of a partition besides objects, clock and log, durably.
//!
//! One short row a partition, beside the clock's checkpoint and written in the commit that changes
//! it. Its fields follow each other behind the number of the layout, so that a release that knows
//! more of them can tell.
//!
//! A row: version (1 byte), what is known to be stable (a version vector), whether the log was cut (1
//! byte: 0 or 1); at the end a crc32c.

use bytes::BufMut;

use holm_protocol::ids::Partition;
use holm_protocol::version_vector::VersionVector;
use holm_protocol::wire::{Reader, WireError};

use crate::clock::ACTORS_MAX;
use crate::keys::account_key;
use crate::shard::log::{checked, read_flag, seal};
use crate::store::{Store, StoreError, Table};

/// The layout above.
const VERSION: u8 = 1;

/// See the [module](self).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    /// Per actor, up to which counter every replica has durably seen everything: what this replica
    /// knows to be stable.
    pub know: VersionVector,
    /// Whether segments of the log were cut: nothing else tells what their objects have to forget.
    pub is_cut: bool,
}

impl Account {
    /// A partition's account as the disk has it; nothing is known of one that has none.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if it is damaged, or what the store reports.
    pub fn read<S: Store>(partition: Partition, store: &mut S) -> Result<Account, StoreError> {
        let Some(row) = store.get(Table::Meta, &account_key(partition))? else {
            return Ok(Account::default());
        };
        Account::decode(&row)
            .map_err(|error| StoreError::Corrupt(format!("account of {partition}: {error}")))
    }

    /// Stages the row.
    pub fn stage<S: Store>(&self, partition: Partition, store: &mut S) {
        store.stage_put(Table::Meta, &account_key(partition), &self.encode());
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_u8(VERSION);
        self.know.encode(&mut out);
        out.put_u8(self.is_cut.into());
        seal(out)
    }

    /// Reads a row.
    ///
    /// # Errors
    /// [`WireError`] if it is damaged or of another version.
    pub fn decode(row: &[u8]) -> Result<Account, WireError> {
        let mut reader = Reader::new(checked(row, "account")?);
        let version = reader.u8()?;
        if version != VERSION {
            return Err(WireError::Invalid { field: "account version", got: version.into() });
        }
        let know = VersionVector::decode(&mut reader, ACTORS_MAX)?;
        let is_cut = read_flag(&mut reader)?;
        reader.finish()?;
        Ok(Account { know, is_cut })
    }
}

#[cfg(test)]
mod tests {
    use holm_protocol::dot::Dot;
    use holm_protocol::ids::Actor;

    use super::*;

    /// Goal: a row is read back as it was, and damage to any of its bytes is found.
    #[test]
    fn rows_are_read_back_or_refused() {
        let mut account = Account { is_cut: true, ..Account::default() };
        for actor in 1..4 {
            account.know.insert(Dot { actor: Actor(actor), counter: actor * 1000 });
        }
        let row = account.encode();
        assert_eq!(Account::decode(&row), Ok(account));
        assert_eq!(Account::decode(&Account::default().encode()), Ok(Account::default()));
        for at in 0..row.len() {
            let mut damaged = row.clone();
            damaged[at] ^= 1;
            assert!(Account::decode(&damaged).is_err(), "byte {at}");
            assert!(Account::decode(&row[..at]).is_err(), "{at} bytes");
        }
        let mut of_another_version = vec![VERSION + 1];
        Account::default().know.encode(&mut of_another_version);
        assert!(Account::decode(&seal(of_another_version)).is_err());
    }
}
