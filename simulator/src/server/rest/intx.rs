//! Perpetuals of the international exchange, which Advanced Trade had until 1 October 2026.

use crate::server::error::ApiError;

pub async fn deprecated() -> ApiError {
    ApiError::Gone(
        "INTX perpetuals over the Advanced Trade API ended on 1 October 2026; this endpoint is deprecated".into(),
    )
}
