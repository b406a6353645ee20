//! Any text is a list of scopes or none, and what two lists have in common is never more
//! than either has.
#![no_main]

use alknet_core::Scopes;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|texts: (&str, &str, &str)| {
    let (Ok(a), Ok(b)) = (texts.0.parse::<Scopes>(), texts.1.parse::<Scopes>()) else { return };
    assert_eq!(a.to_string().parse::<Scopes>().as_ref(), Ok(&a));
    let common = a.common(&b);
    assert!(common.within(&a) && common.within(&b));
    let both = a.allow(texts.2) && b.allow(texts.2);
    assert_eq!(common.allow(texts.2), both);
    if a.within(&b) && a.allow(texts.2) {
        assert!(b.allow(texts.2));
    }
});
