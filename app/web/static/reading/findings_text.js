// The findings as a person would dictate them: plain lines, units named, the human decision kept apart from the draft.

/**
 * @param {any} words
 * @param {{result: any, volume: any, review: any}} known
 */
export function findingsText(words, { result, volume, review }) {
  const { model, operating_point: point, nodules } = result;
  const images = (nodule) => {
    const numbers = nodule.slices.map((slice) => slice.instance_number).filter((number) => number !== null);
    return numbers.length ? words.images(Math.min(...numbers), Math.max(...numbers)) : "";
  };
  const lines = nodules.map((nodule, number) => {
    const decision = review.decision(nodule.id);
    return [words.nodule(number + 1, nodule, images(nodule)), decision && `   ${words.decided(decision)}`].filter(Boolean).join("\n");
  });
  const added = review.added().map((mark, number) => words.added(number + 1, mark));
  return [
    words.heading,
    volume ? words.scan(volume) : "",
    nodules.length ? lines.join("\n") : words.nothing,
    added.length ? [words.addedHeading, ...added].join("\n") : "",
    review.exists() ? words.reviewer(review.state()) : "",
    words.model(model, point),
    result.disclaimer,
  ]
    .filter(Boolean)
    .join("\n\n");
}
