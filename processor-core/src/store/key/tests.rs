//! The order of the bytes is the order of the keys, and what begins alike begins with the same bytes.

use std::fmt::Debug;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::ids::Timestamp;

fn bytes_of<K: StoreKey>(key: &K) -> Vec<u8> {
    let mut bytes = Vec::new();
    key.encode(&mut bytes);
    bytes
}

fn part_of<K: KeyPart>(key: &K) -> Vec<u8> {
    let mut bytes = Vec::new();
    key.encode_part(&mut bytes);
    bytes
}

fn prefix_of<K, P: KeyPrefix<K> + ?Sized>(prefix: &P) -> Vec<u8> {
    let mut bytes = Vec::new();
    prefix.encode_prefix(&mut bytes);
    bytes
}

fn order_is_kept<K: StoreKey + Debug>((a, b): &(K, K)) {
    assert_eq!(a.cmp(b), bytes_of(a).cmp(&bytes_of(b)), "{a:?} and {b:?}");
    assert_eq!(&K::decode(&bytes_of(a)).expect("what was written can be read"), a);
}

/// A part keeps the order whatever follows it, and says where it ends.
fn order_is_kept_in_parts<K: KeyPart + Debug>(pair: &(K, K), follows: &(Vec<u8>, Vec<u8>)) {
    order_is_kept(pair);
    let (a, b) = pair;
    let (a_bytes, b_bytes) = ([part_of(a), follows.0.clone()].concat(), [part_of(b), follows.1.clone()].concat());
    assert_eq!(a.cmp(b).then(follows.0.cmp(&follows.1)), a_bytes.cmp(&b_bytes), "{a:?} and {b:?}");
    let mut rest = a_bytes.as_slice();
    assert_eq!(&K::decode_part(&mut rest).expect("what was written can be read"), a);
    assert_eq!(rest, follows.0);
    assert!(a == b || !part_of(a).starts_with(&part_of(b)), "the bytes of one part are not the beginning of another's");
}

/// Few values, with zeros and the byte that escapes them, so that keys often begin alike.
fn short_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![Just(0), Just(1), Just(254), Just(255)], 0..4)
}

fn short_text() -> impl Strategy<Value = String> {
    "[\0\u{1}aé]{0,3}"
}

fn total() -> impl Strategy<Value = TotalF64> {
    let special = [0.0, f64::INFINITY, f64::NAN, f64::MIN_POSITIVE, 1.0].into_iter().flat_map(|x| [x, -x]);
    prop_oneof![any::<u64>().prop_map(f64::from_bits), prop::sample::select(special.collect::<Vec<_>>())]
        .prop_map(TotalF64)
}

type Key = (String, Vec<u8>, bool, u8);

fn two<S: Strategy + Clone>(strategy: S) -> (S, S) {
    (strategy.clone(), strategy)
}

proptest! {
    #[test]
    fn byte_order_is_key_order_for_numbers(
        unsigned in any::<((u8, u8), (u16, u16), (u32, u32), (u64, u64), (u128, u128))>(),
        signed in any::<((i8, i8), (i16, i16), (i32, i32), (i64, i64), (i128, i128))>(),
        flags in any::<(bool, bool)>(), doubles in (total(), total()), ids in any::<(u128, u128)>(),
        arrays in any::<([u8; 3], [u8; 3])>(), follows in (short_bytes(), short_bytes()),
    ) {
        order_is_kept_in_parts(&unsigned.0, &follows);
        order_is_kept_in_parts(&unsigned.1, &follows);
        order_is_kept_in_parts(&unsigned.2, &follows);
        order_is_kept_in_parts(&unsigned.3, &follows);
        order_is_kept_in_parts(&unsigned.4, &follows);
        order_is_kept_in_parts(&signed.0, &follows);
        order_is_kept_in_parts(&signed.1, &follows);
        order_is_kept_in_parts(&signed.2, &follows);
        order_is_kept_in_parts(&signed.3, &follows);
        order_is_kept_in_parts(&signed.4, &follows);
        order_is_kept_in_parts(&flags, &follows);
        order_is_kept_in_parts(&doubles, &follows);
        order_is_kept_in_parts(&(Uuid::from_u128(ids.0), Uuid::from_u128(ids.1)), &follows);
        order_is_kept_in_parts(&(Timestamp::new(signed.3.0), Timestamp::new(signed.3.1)), &follows);
        order_is_kept_in_parts(&arrays, &follows);
    }

    #[test]
    fn byte_order_is_key_order_for_texts_and_bytes(
        short in two(short_text().boxed()), text in any::<(String, String)>(), few in two(short_bytes().boxed()),
        many in any::<(Vec<u8>, Vec<u8>)>(), follows in (short_bytes(), short_bytes()),
    ) {
        order_is_kept_in_parts(&short, &follows);
        order_is_kept_in_parts(&text, &follows);
        order_is_kept_in_parts(&few, &follows);
        order_is_kept_in_parts(&many, &follows);
    }

    #[test]
    fn byte_order_is_key_order_for_what_is_made_of_others(
        pairs in two((short_text(), any::<i8>()).boxed()),
        options in two(prop::option::of(short_bytes()).boxed()),
        triples in two((short_bytes(), any::<Option<bool>>(), short_text()).boxed()),
        nested in two(((short_text(), short_bytes()), prop::option::of((total(), short_text()))).boxed()),
        quads in two((any::<bool>(), short_text(), any::<u8>(), short_bytes()).boxed()),
        follows in (short_bytes(), short_bytes()),
    ) {
        order_is_kept_in_parts(&pairs, &follows);
        order_is_kept_in_parts(&options, &follows);
        order_is_kept_in_parts(&triples, &follows);
        order_is_kept_in_parts(&nested, &follows);
        order_is_kept_in_parts(&quads, &follows);
    }

    #[test]
    fn keys_begin_with_a_prefix_exactly_if_their_first_components_are_it(
        a in (short_text(), short_bytes(), any::<bool>(), any::<u8>()),
        b in (short_text(), short_bytes(), any::<bool>(), any::<u8>()),
    ) {
        let bytes = bytes_of(&b);
        let begins = |prefix: Vec<u8>| bytes.starts_with(&prefix);
        prop_assert_eq!(begins(prefix_of::<Key, _>(&(a.0.clone(),))), a.0 == b.0);
        prop_assert_eq!(begins(prefix_of::<Key, _>(&(a.0.clone(), a.1.clone()))), (&a.0, &a.1) == (&b.0, &b.1));
        let three = (a.0.clone(), a.1.clone(), a.2);
        prop_assert_eq!(begins(prefix_of::<Key, _>(&three)), (&a.0, &a.1, a.2) == (&b.0, &b.1, b.2));
        prop_assert_eq!(bytes_of(&b.0).starts_with(&prefix_of::<String, str>(&a.0)), b.0.starts_with(&a.0));
        prop_assert_eq!(bytes_of(&b.1).starts_with(&prefix_of::<Vec<u8>, [u8]>(&a.1)), b.1.starts_with(&a.1));
    }

    #[test]
    fn hostile_bytes_are_an_error_or_the_key_that_is_written_like_them(bytes in prop_oneof![any::<Vec<u8>>(), short_bytes()]) {
        fn check<K: StoreKey>(bytes: &[u8]) {
            if let Ok(key) = K::decode(bytes) {
                assert_eq!(bytes_of(&key), bytes);
            }
        }
        check::<String>(&bytes);
        check::<(String, Vec<u8>)>(&bytes);
        check::<(Vec<u8>, Option<u16>, bool)>(&bytes);
        check::<Option<(bool, TotalF64)>>(&bytes);
        check::<[u8; 3]>(&bytes);
        check::<u16>(&bytes);
        check::<bool>(&bytes);
    }
}

/// These bytes are in changelogs and databases: a change here loses state.
#[test]
fn the_bytes_are_the_documented_ones() {
    assert_eq!(bytes_of(&"a\0".to_owned()), b"a\0");
    assert_eq!(bytes_of(&258_u16), [1, 2]);
    assert_eq!(bytes_of(&-1_i16), [0x7f, 0xff]);
    assert_eq!(bytes_of(&true), [1]);
    assert_eq!(bytes_of(&TotalF64(1.0)), [0xbf, 0xf0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bytes_of(&TotalF64(-1.0)), [0x40, 0x0f, 255, 255, 255, 255, 255, 255]);
    assert_eq!(bytes_of(&Timestamp::new(1)), [0x80, 0, 0, 0, 0, 0, 0, 1]);
    assert_eq!(bytes_of(&Uuid::from_u128(7)), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
    assert_eq!(bytes_of(&(None::<u8>, Some("b".to_owned()))), b"\0\x01b");
    assert_eq!(bytes_of(&("a\0".to_owned(), 1_u8, b"\0".to_vec())), b"a\0\xff\0\0\x01\0");
}

/// Found by the fuzz target `store_key`: a NaN with a sign or a payload was shown as the usual one, which is another key.
#[test]
fn what_is_shown_of_a_double_finds_it() {
    for bits in [f64::NAN.to_bits(), f64::NAN.to_bits() | 7, (-f64::NAN).to_bits(), f64::INFINITY.to_bits(), 1] {
        let key = TotalF64(f64::from_bits(bits));
        let shown = key.to_json().expect("it can be shown");
        let found = TotalF64::from_json(&shown).expect("what was shown can be read");
        assert_eq!(found.0.to_bits(), bits, "{shown}");
    }
    assert_eq!(TotalF64(f64::NAN).to_json(), Ok("NaN".into()));
}
