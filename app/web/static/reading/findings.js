// Everything a mark can stand for, as one list: the answer's nodules, candidates below the threshold in force, and what
// the reader added. Which of them are shown depends on the threshold that the reader has set.

/**
 * @param {any} result AnalysisResult
 * @param {any | null} candidates of the service; null where it has none
 * @param {any} review of `createReview`
 * @param {number} threshold
 */
export function findingsOf(result, candidates, review, threshold) {
  const nodules = result.nodules.map((nodule, number) => ({
    id: nodule.id,
    short: String(number + 1),
    nodule,
    kind: review.decision(nodule.id)?.decision ?? "finding",
    probability: nodule.probability,
    diameter_mm: nodule.diameter_mm,
    center_lps_mm: nodule.center_lps_mm,
  }));
  const others = (candidates?.candidates ?? [])
    .filter((one) => !one.reported)
    .map((one, number) => ({ ...one, short: `c${number + 1}`, nodule: null, kind: "candidate" }));
  const added = review.added().map((one, number) => ({
    ...one,
    id: `added-${number + 1}`,
    short: `+${number + 1}`,
    nodule: null,
    kind: "added",
    probability: null,
    addedAt: number,
  }));
  // A reader's own decision stays in sight whatever the threshold.
  const isShown = (one) => one.probability >= threshold || one.kind === "accepted" || one.kind === "rejected";
  return [...[...nodules, ...others].filter(isShown), ...added];
}

const BY = {
  probability: (one) => -(one.probability ?? 2),
  size: (one) => -one.diameter_mm,
  malignancy: (one) => -(one.nodule?.malignancy_probability ?? -1),
};

/** @param {"probability" | "size" | "malignancy"} by */
export const sorted = (findings, by) => [...findings].sort((a, b) => BY[by](a) - BY[by](b));

/** The measured point that holds at a threshold: the highest that is not above it; null below all. */
export function measuredAt(curve, threshold) {
  return curve.filter((point) => point.threshold <= threshold + 1e-9).at(-1) ?? null;
}
