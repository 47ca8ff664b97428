//! What keys can begin with.

use super::KeyPart;

/// The beginning of keys of type `K`: of a tuple its first components, as a tuple; of a text or of bytes their beginning.
///
/// ```
/// use processor_core::store::{KeyPrefix, StoreKey};
///
/// fn begins<K: StoreKey>(key: &K, prefix: &(impl KeyPrefix<K> + ?Sized)) -> bool {
///     let (mut whole, mut beginning) = (Vec::new(), Vec::new());
///     key.encode(&mut whole);
///     prefix.encode_prefix(&mut beginning);
///     whole.starts_with(&beginning)
/// }
///
/// let key = ("ann".to_owned(), 7_u32, true);
/// assert!(begins(&key, &("ann".to_owned(),)) && begins(&key, &("ann".to_owned(), 7)));
/// assert!(!begins(&key, &("an".to_owned(),)), "a component is the same or not");
/// assert!(begins(&"ann".to_owned(), "an"), "a text by itself is cut anywhere");
/// ```
///
/// # Contract
/// The bytes are the beginning of exactly those keys' bytes that begin with this.
#[diagnostic::on_unimplemented(
    message = "keys of type `{K}` do not begin with a `{Self}`",
    note = "a tuple begins with its first components, as in `.prefix(&(customer,))`; a `String` with a `str`, a `Vec<u8>` with a `[u8]`"
)]
pub trait KeyPrefix<K> {
    /// Appends the bytes that the keys begin with.
    ///
    /// ```
    /// use processor_core::store::KeyPrefix;
    ///
    /// let mut bytes = Vec::new();
    /// KeyPrefix::<String>::encode_prefix("kit", &mut bytes); // of "kitchen", for one
    /// assert_eq!(bytes, b"kit");
    /// ```
    fn encode_prefix(&self, bytes: &mut Vec<u8>);
}

impl KeyPrefix<String> for str {
    fn encode_prefix(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(self.as_bytes());
    }
}

impl KeyPrefix<Self> for String {
    fn encode_prefix(&self, bytes: &mut Vec<u8>) {
        self.as_str().encode_prefix(bytes);
    }
}

impl KeyPrefix<Vec<u8>> for [u8] {
    fn encode_prefix(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(self);
    }
}

impl KeyPrefix<Self> for Vec<u8> {
    fn encode_prefix(&self, bytes: &mut Vec<u8>) {
        self.as_slice().encode_prefix(bytes);
    }
}

macro_rules! tuple_prefixes {
    ($(($($part:ident $place:tt),*) of ($($rest:ident),*);)*) => {$(
        impl<$($part: KeyPart,)* $($rest,)*> KeyPrefix<($($part,)* $($rest,)*)> for ($($part,)*) {
            fn encode_prefix(&self, bytes: &mut Vec<u8>) {
                $(self.$place.encode_part(bytes);)*
            }
        }
    )*};
}

tuple_prefixes! {
    (A 0) of (B);
    (A 0) of (B, C);
    (A 0) of (B, C, D);
    (A 0, B 1) of (C);
    (A 0, B 1) of (C, D);
    (A 0, B 1, C 2) of (D);
}
