//! The AWS SDK for Rust as an IMDS client: prints what `imds::Client` got for each path.
//!
//! `aws-imds [--credentials] PATH…` prints one JSON line for each path: `{"status": 200, "body":
//! "…"}`, then one with what its providers find there: credentials and region. Nothing is
//! configured but the HTTP connector, which is built without TLS.

use aws_config::{
    imds::{
        self, client::error::ImdsError, credentials::ImdsCredentialsProvider,
        region::ImdsRegionProvider,
    },
    provider_config::ProviderConfig,
};
use aws_credential_types::provider::ProvideCredentials as _;
use serde_json::json;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let http = aws_smithy_http_client::Builder::new().build_http();
    let config = ProviderConfig::default().with_http_client(http);
    let client = imds::Client::builder().configure(&config).build();
    let (options, paths): (Vec<_>, Vec<_>) = std::env::args()
        .skip(1)
        .partition(|argument| argument.starts_with("--"));
    for path in paths {
        let line = match client.get(&path).await {
            Ok(body) => json!({"status": 200, "body": body.as_ref()}),
            Err(ImdsError::ErrorResponse(response)) => {
                json!({"status": response.response().status().as_u16()})
            }
            Err(error) => json!({"error": format!("{error:?}")}),
        };
        println!("{line}");
    }
    if options == ["--credentials"] {
        let provider = ImdsCredentialsProvider::builder()
            .configure(&config)
            .build();
        let found = provider.provide_credentials().await;
        let region = ImdsRegionProvider::builder().configure(&config).build();
        let line = json!({
            "access_key": found.as_ref().map(|found| found.access_key_id()).ok(),
            "region": region.region().await.map(|region| region.to_string()),
        });
        println!("{line}");
    }
}
