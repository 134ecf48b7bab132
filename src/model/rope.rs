//! Rotary position embedding (Su et al., 2021) with the scalings our architectures use.

use mlx_rs::{Array, fast};

use super::Error;

/// How positions become angles.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeConfig {
    pub theta: f32,
    pub scaling: RopeScaling,
}

#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    None,
    /// All positions divided by a factor.
    Linear {
        factor: f32,
    },
    /// Llama 3.1's rule: low frequencies stretched, high ones kept, the middle blended.
    Llama3 {
        factor: f32,
        low_freq_factor: f32,
        high_freq_factor: f32,
        original_context: f32,
    },
    /// One factor per frequency, as GGUF files carry them: `[head_dim / 2]`.
    Factors(Vec<f32>),
}

/// The frequencies of one head size, for the CPU kernels.
pub struct Frequencies {
    /// Reciprocal, `[head_dim / 2]`.
    reciprocals: Vec<f32>,
    /// Positions are multiplied by this.
    scale: f32,
}

impl Frequencies {
    pub fn new(config: &RopeConfig, head_dim: usize) -> Result<Frequencies, Error> {
        let scale = match config.scaling {
            RopeScaling::Linear { factor } => 1.0 / factor,
            _ => 1.0,
        };
        let reciprocals = reciprocal_frequencies(config.theta, &config.scaling, head_dim)?;
        Ok(Frequencies { reciprocals, scale })
    }

    /// Angles per position.
    pub fn len(&self) -> usize {
        self.reciprocals.len()
    }

    /// The cosines and sines of a position's angles.
    pub fn angles(&self, position: usize, cos: &mut [f32], sin: &mut [f32]) {
        let position = position as f64 * f64::from(self.scale);
        kernels::rows::rope_angles(position, &self.reciprocals, cos, sin);
    }
}

/// RoPE of one head size, ready to apply.
pub struct Rope {
    dimensions: i32,
    base: Option<f32>,
    scale: f32,
    /// Reciprocal frequencies, `[dimensions / 2]`, where they are not a plain power of the base.
    frequencies: Option<Array>,
}

impl Rope {
    pub fn new(config: &RopeConfig, head_dim: usize) -> Result<Rope, Error> {
        let plain = |scale| Rope {
            dimensions: head_dim as i32,
            base: Some(config.theta),
            scale,
            frequencies: None,
        };
        Ok(match &config.scaling {
            RopeScaling::None => plain(1.0),
            RopeScaling::Linear { factor } => plain(1.0 / factor),
            scaling => {
                let values = reciprocal_frequencies(config.theta, scaling, head_dim)?;
                let frequencies = Array::from_slice(&values, &[values.len() as i32]);
                Rope { base: None, frequencies: Some(frequencies), ..plain(1.0) }
            }
        })
    }

    /// Rotates `[1, head, token, head_dim]`; the first token is at position `start`.
    pub fn apply(&self, x: &Array, start: usize) -> Result<Array, Error> {
        let traditional = false;
        Ok(fast::rope(
            x,
            self.dimensions,
            traditional,
            self.base,
            self.scale,
            start as i32,
            self.frequencies.as_ref(),
        )?)
    }
}

/// `theta^(2i / head_dim)`, changed by the scaling rule. MLX divides positions by these.
pub fn reciprocal_frequencies(
    theta: f32,
    scaling: &RopeScaling,
    head_dim: usize,
) -> Result<Vec<f32>, Error> {
    let plain = (0..head_dim / 2).map(|i| theta.powf(2.0 * i as f32 / head_dim as f32));
    Ok(match scaling {
        RopeScaling::None | RopeScaling::Linear { .. } => plain.collect(),
        RopeScaling::Factors(factors) => {
            if factors.len() != head_dim / 2 {
                return Err(Error::Setting(format!(
                    "{} RoPE factors for heads of {head_dim}",
                    factors.len()
                )));
            }
            plain.zip(factors).map(|(frequency, factor)| frequency * factor).collect()
        }
        &RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
            plain
                .map(|frequency| {
                    let wavelength = 2.0 * std::f32::consts::PI * frequency;
                    if wavelength > original_context / low_freq_factor {
                        frequency * factor
                    } else if wavelength < original_context / high_freq_factor {
                        frequency
                    } else {
                        let smooth = (original_context / wavelength - low_freq_factor)
                            / (high_freq_factor - low_freq_factor);
                        frequency / ((1.0 - smooth) / factor + smooth)
                    }
                })
                .collect()
        }
    })
}
