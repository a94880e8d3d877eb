//! Encoded metadata: nothing but what was encoded is ever built from bytes.

use holm_protocol::limits::NAME_LEN_MAX;
use proptest::prelude::*;

use super::*;

fn sample() -> Metadata {
    let mut metadata = cluster();
    write(&mut metadata, &change("carts", true), 5, 1);
    write(&mut metadata, &change("users", true), 6, 2);
    metadata
}

/// Goal: damage is found. Method: every byte of a small sample changed, every length tried.
#[test]
fn damaged_bytes_are_refused() {
    let bytes = sample().encode();
    assert_eq!(Metadata::decode(&bytes), Ok(sample()));
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        assert!(Metadata::decode(&damaged).is_err(), "byte {at}");
        assert!(Metadata::decode(&bytes[..at]).is_err(), "length {at}");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert_eq!(Metadata::decode(&longer), Err(MetadataDecodeError::Damaged));
    let mut newer = bytes;
    newer[0] = 2;
    assert_eq!(Metadata::decode(&newer), Err(MetadataDecodeError::Format { got: 2 }));
    let endless = vec![1; ENCODED_BYTES_MAX + 1];
    let too_long = MetadataDecodeError::TooLong { bytes: endless.len() };
    assert_eq!(Metadata::decode(&endless), Err(too_long));
}

/// Goal: metadata that a faulty node made, under a right digest, is refused for what is wrong with
/// it. Method: values that only code in this module can build, encoded as usual.
#[test]
fn impossible_metadata_is_refused() {
    let decode = |metadata: Metadata| Metadata::decode(&metadata.encode()).unwrap_err();
    let mut wrong = sample();
    wrong.secrets = None;
    assert_eq!(decode(wrong), MetadataDecodeError::Secrets);
    let mut wrong = sample();
    let secrets = wrong.secrets.as_mut().unwrap();
    secrets.previous = vec![secrets.current.clone()];
    assert_eq!(decode(wrong), MetadataDecodeError::Secrets);
    let mut wrong = sample();
    wrong.cluster = String::new();
    assert_eq!(decode(wrong), MetadataDecodeError::Cluster(String::new()));
    let mut wrong = sample();
    wrong.buckets.get_mut(&bucket_id("carts")).unwrap().info.id = BucketId(1);
    assert_eq!(decode(wrong), MetadataDecodeError::BucketId { name: "carts".into() });
    let mut wrong = sample();
    wrong.buckets.get_mut(&bucket_id("carts")).unwrap().info.policy.max_value = 0;
    assert!(matches!(decode(wrong), MetadataDecodeError::Policy(_)));
    let mut wrong = sample();
    wrong.buckets.get_mut(&bucket_id("carts")).unwrap().info.policy.read_level = Level::Count(0);
    assert_eq!(decode(wrong), MetadataDecodeError::Level { name: "carts".into() });
}

/// Goal: the largest bucket map fits what the decoder accepts. Method: the longest of everything.
#[test]
fn longest_buckets_fit() {
    let mut metadata = cluster();
    let bare = metadata.encode().len();
    for number in 0..100 {
        let name = format!("{number:0>NAME_LEN_MAX$}");
        let policy = BucketPolicy {
            placement: PlacementId(u16::MAX),
            read_level: Level::Count(127),
            write_level: Level::Count(127),
            ..BucketPolicy::default()
        };
        let info = BucketInfo { id: bucket_id(&name), name, policy };
        let entry = BucketEntry { info, version: Hlc(u64::MAX), node: NodeId(u64::MAX) };
        metadata.buckets.insert(entry.info.id, entry);
    }
    let each = (metadata.encode().len() - bare).div_ceil(100);
    assert!(each <= (ENCODED_BYTES_MAX - crate::layout::ENCODED_BYTES_MAX) / BUCKETS_HARD_MAX);
    assert_eq!(Metadata::decode(&metadata.encode()), Ok(metadata));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// Goal: any bytes give metadata or an error, also behind a digest that matches.
    #[test]
    fn noise_is_refused(body in proptest::collection::vec(any::<u8>(), 0..256)) {
        let mut bytes = vec![1];
        bytes.extend_from_slice(&blake3::hash(&body).as_bytes()[..16]);
        bytes.extend_from_slice(&body);
        if let Ok(metadata) = Metadata::decode(&bytes) {
            prop_assert_eq!(metadata.encode(), bytes);
        }
        prop_assert!(Metadata::decode(&body).is_err());
    }
}
