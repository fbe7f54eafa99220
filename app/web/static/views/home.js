export function mount(root, { strings }) {
  root.textContent = strings.disclaimer;
  return () => {};
}
