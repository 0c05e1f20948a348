// Loaded before require.js, which reads window.require: html-manager takes its icon fonts from below this folder.
// Relative, so that file:// and any sub-folder work.
window.require = { baseUrl: (document.documentElement.dataset.content_root || "./") + "_static/lib" };
// html-manager calls MathJax 2's queue; without this bridge to MathJax 3 each described widget rejects a promise.
addEventListener("load", () => {
  const mathjax = window.MathJax;
  if (mathjax && mathjax.startup && !mathjax.Hub) {
    mathjax.Hub = { Queue: (job) => mathjax.startup.promise.then(() => mathjax.typesetPromise([job[2]])) };
  }
});
