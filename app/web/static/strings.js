// Every word that a person reads, in one file. Views take theirs from the part with their name.

export const strings = {
  skip: "Skip to the content",
  disclaimer: "Research use only. Not for diagnosis.",
};
