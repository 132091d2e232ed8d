//! Names, endpoints, tokens: short texts that people and scripts type.

use fleet_api::client::Endpoint;
use fleet_api::paging::PageToken;
use fleet_core::name::{MAX_NAME_BYTES, UnitName, with_default_type};

/// What is a name is made of its parts; what is none says why.
pub(crate) fn names(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match UnitName::parse(&text) {
        Ok(name) => {
            assert_eq!(name.as_str(), text);
            assert!(name.as_str().len() <= MAX_NAME_BYTES && !text.contains(['/', '\0', '\n']));
            let suffix = name.unit_type();
            assert_eq!(format!("{}.{suffix}", name.stem()), text);
            assert!(name.stem().starts_with(name.prefix()));
            assert!(!(name.is_template() && name.is_instance()));
            if let Some(instance) = name.instance() {
                assert_eq!(format!("{}@{instance}", name.prefix()), name.stem());
            }
            if let Some(template) = name.template() {
                assert!(template.is_template());
                assert_eq!(template.prefix(), name.prefix());
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    let typed = with_default_type(&text);
    assert_eq!(with_default_type(&typed), typed);
    if let Ok(endpoint) = Endpoint::parse(&text) {
        assert!(!endpoint.to_string().is_empty() && !endpoint.url_base().is_empty());
    }
    if let Ok(token) = PageToken::parse(&text, 100) {
        assert_eq!(PageToken::parse(&token.encode(), 100), Ok(token));
    }
}
