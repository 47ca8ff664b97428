//! Every codec reads what it writes, writes what Kafka's Java serializers write, and takes hostile bytes calmly.

use std::collections::BTreeMap;
use std::fmt::Debug;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::*;

/// A value with every shape that serde knows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Order {
    id: u64,
    customer: Option<String>,
    lines: Vec<Line>,
    notes: BTreeMap<String, i16>,
    pair: (i8, char),
    price: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Line {
    Empty,
    Free(String),
    Counted(u32, bool),
    Weighed { grams: i64 },
}

fn line() -> impl Strategy<Value = Line> {
    prop_oneof![
        Just(Line::Empty),
        ".*".prop_map(Line::Free),
        any::<(u32, bool)>().prop_map(|(count, whole)| Line::Counted(count, whole)),
        any::<i64>().prop_map(|grams| Line::Weighed { grams }),
    ]
}

fn order() -> impl Strategy<Value = Order> {
    let finite = prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL | prop::num::f64::ZERO;
    let notes = prop::collection::btree_map(".{0,4}", any::<i16>(), 0..4);
    let lines = prop::collection::vec(line(), 0..5);
    (any::<u64>(), any::<Option<String>>(), lines, notes, any::<(i8, char)>(), finite)
        .prop_map(|(id, customer, lines, notes, pair, price)| Order { id, customer, lines, notes, pair, price })
}

fn encoded<T>(codec: &impl Codec<T>, value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec.encode(value, &mut bytes).expect("every value of these types can be written");
    bytes
}

fn round_trip<T: PartialEq + Debug>(codec: &impl Codec<T>, value: &T) {
    let mut bytes = vec![7];
    let present = codec.encode(value, &mut bytes).expect("every value of these types can be written");
    let decoded = codec.decode(present.then_some(&bytes[1..])).expect("what was written can be read");
    assert_eq!(&decoded, value);
}

proptest! {
    #[test]
    fn what_is_encoded_decodes_to_itself(
        text in ".*", integers in any::<(i16, i32, i64, u32, u64)>(), float in prop::num::f32::NORMAL,
        double in prop::num::f64::NORMAL, flag in any::<bool>(), raw in any::<Vec<u8>>(), id in any::<u128>(),
        optional in any::<Option<i64>>(), order in order(),
    ) {
        let (short, integer, long, count, large_count) = integers;
        round_trip(&Utf8, &text);
        round_trip(&JavaShort, &short);
        round_trip(&JavaInteger, &integer);
        round_trip(&JavaLong, &long);
        round_trip(&JavaFloat, &float);
        round_trip(&JavaDouble, &double);
        round_trip(&JavaBoolean, &flag);
        round_trip(&JavaUuid, &Uuid::from_u128(id));
        round_trip(&DecimalText, &double);
        round_trip(&DecimalText, &integer);
        round_trip(&DecimalText, &long);
        round_trip(&DecimalText, &count);
        round_trip(&DecimalText, &large_count);
        round_trip(&Raw, &raw);
        round_trip(&Optional(JavaLong), &optional);
        round_trip(&Bincode, &order);
        round_trip(&Json, &order);
        round_trip(&Json, &double);
    }

    #[test]
    fn hostile_bytes_are_an_error_or_a_value_but_never_a_panic(bytes in any::<Vec<u8>>()) {
        decode_with_every_codec(&bytes);
    }

    /// Bytes that are nearly right get further than random ones.
    #[test]
    fn damaged_values_are_an_error_or_a_value_but_never_a_panic(
        order in order(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>(),
    ) {
        for mut bytes in [encoded(&Bincode, &order), encoded(&Json, &order)] {
            let at = at.index(bytes.len());
            bytes[at] = byte;
            decode_with_every_codec(&bytes);
            decode_with_every_codec(&bytes[..cut.index(bytes.len())]);
        }
    }
}

fn decode_with_every_codec(bytes: &[u8]) {
    let bytes = Some(bytes);
    let _: Result<String, _> = Utf8.decode(bytes);
    let _: Result<i16, _> = JavaShort.decode(bytes);
    let _: Result<i32, _> = JavaInteger.decode(bytes);
    let _: Result<i64, _> = JavaLong.decode(bytes);
    let _: Result<f32, _> = JavaFloat.decode(bytes);
    let _: Result<f64, _> = JavaDouble.decode(bytes);
    let _: Result<bool, _> = JavaBoolean.decode(bytes);
    let _: Result<Uuid, _> = JavaUuid.decode(bytes);
    let _: Result<f64, _> = DecimalText.decode(bytes);
    let _: Result<u64, _> = DecimalText.decode(bytes);
    let _: Result<Order, _> = Bincode.decode(bytes);
    let _: Result<Vec<(String, Option<u32>)>, _> = Bincode.decode(bytes);
    let _: Result<Order, _> = Json.decode(bytes);
    let _: Result<serde_json::Value, _> = Json.decode(bytes);
}

#[test]
fn bytes_are_those_of_kafkas_java_serializers() {
    assert_eq!(encoded(&JavaShort, &-2), [0xff, 0xfe]);
    assert_eq!(encoded(&JavaInteger, &258), [0, 0, 1, 2]);
    assert_eq!(encoded(&JavaLong, &258), [0, 0, 0, 0, 0, 0, 1, 2]);
    assert_eq!(encoded(&JavaFloat, &1.0), [0x3f, 0x80, 0, 0]);
    assert_eq!(encoded(&JavaDouble, &1.0), [0x3f, 0xf0, 0, 0, 0, 0, 0, 0]);
    assert_eq!((encoded(&JavaBoolean, &false), encoded(&JavaBoolean, &true)), (vec![0], vec![1]));
    let id = Uuid::from_u128(0x67e5_5044_10b1_426f_9247_bb68_0e5f_e0c8);
    assert_eq!(encoded(&JavaUuid, &id), b"67e55044-10b1-426f-9247-bb680e5fe0c8");
}

#[test]
fn null_is_only_read_by_optional() {
    assert!(Utf8.decode(None).is_err());
    assert!(Codec::<Option<i64>>::decode(&Json, None).is_err());
    assert!(Codec::<Option<i64>>::decode(&Bincode, None).is_err());
    assert_eq!(Optional(Utf8).decode(None), Ok(None));
    assert_eq!(Optional(JavaBoolean).decode(None), Ok(None));
    assert_eq!(Optional(Utf8).decode(Some(b"")), Ok(Some(String::new())));
}

#[test]
fn what_is_refused_is_said_with_what_was_expected() {
    fn refused<T: Debug>(codec: &impl Codec<T>, bytes: &[u8]) -> String {
        codec.decode(Some(bytes)).expect_err("these bytes are no value").0
    }
    assert_eq!(refused(&JavaInteger, b"12345"), "it has 5 bytes, not 4");
    assert_eq!(refused(&JavaBoolean, &[2]), "its byte is 2, not 0 or 1");
    assert!(refused::<u64>(&DecimalText, b"-1").ends_with("such as 42, and not negative"));
    assert!(refused::<f64>(&DecimalText, b"warm").starts_with("'warm' is not a decimal number"));
    assert!(refused(&JavaUuid, b"67e5504410b1426f9247bb680e5fe0c8").contains("is not a UUID such as"));
    assert!(refused::<f64>(&DecimalText, &[b'x'; 10_000]).len() < 200, "a long text is not quoted in full");
    assert!(refused::<u32>(&Json, b"1 2").contains("trailing"));
    assert_eq!(refused::<u8>(&Bincode, &[1, 2]), "1 bytes are left behind the value");
}

#[test]
fn a_value_that_json_cannot_hold_leaves_nothing_behind() {
    let mut bytes = b"before".to_vec();
    let keys_are_no_text = BTreeMap::from([((1_u8, 2_u8), 3_u8)]);
    let error = Json.encode(&keys_are_no_text, &mut bytes).expect_err("JSON's keys are texts");
    assert!(error.0.starts_with("it cannot be written as JSON"), "{error}");
    assert_eq!(bytes, b"before");
}
