// The chosen theme, set before the first paint; therefore a plain script in the head and not a module.
(() => {
  const KEY = "anomaly-ov-theme";
  const root = document.documentElement;
  const wanted = localStorage.getItem(KEY);
  if (wanted === "light" || wanted === "dark") root.dataset.theme = wanted;

  // From what is seen now to the other one; the system's own wish holds until somebody chooses.
  window.switchTheme = () => {
    const dark = root.dataset.theme
      ? root.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    localStorage.setItem(KEY, root.dataset.theme);
  };
})();
