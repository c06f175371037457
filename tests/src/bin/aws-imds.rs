//! The AWS SDK for Rust as an IMDS client: prints what `imds::Client` got for each path.
//!
//! `aws-imds PATH…` prints one JSON line for each path: `{"status": 200, "body": "…"}`.
//! Nothing is configured but the HTTP connector, which is built without TLS.

use aws_config::{
    imds::{self, client::error::ImdsError},
    provider_config::ProviderConfig,
};
use serde_json::json;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let http = aws_smithy_http_client::Builder::new().build_http();
    let config = ProviderConfig::default().with_http_client(http);
    let client = imds::Client::builder().configure(&config).build();
    for path in std::env::args().skip(1) {
        let line = match client.get(&path).await {
            Ok(body) => json!({"status": 200, "body": body.as_ref()}),
            Err(ImdsError::ErrorResponse(response)) => {
                json!({"status": response.response().status().as_u16()})
            }
            Err(error) => json!({"error": format!("{error:?}")}),
        };
        println!("{line}");
    }
}
