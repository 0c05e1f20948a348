// 1. A figure that moves: one range input, one picture a position, all of them in the page. Without JavaScript the page
//    shows one of the pictures and no slider.
function startFigure(figure) {
  const input = figure.querySelector("input");
  const output = figure.querySelector("output");
  const play = figure.querySelector("button");
  const pictures = [...figure.querySelectorAll("img")];
  let timer = null;
  const show = () => {
    pictures.forEach((picture, index) => { picture.hidden = index !== Number(input.value); });
    output.textContent = pictures[input.value].dataset.label;
    input.setAttribute("aria-valuetext", pictures[input.value].dataset.label);
  };
  const stop = () => {
    clearInterval(timer);
    timer = null;
    if (play) play.textContent = "Play";
  };
  const step = () => {
    input.value = Number(input.value) + 1;
    show();
    if (input.value === input.max) stop();
  };
  input.addEventListener("input", () => { stop(); show(); });
  play?.addEventListener("click", () => {
    if (timer !== null) { stop(); return; }
    if (input.value === input.max) { input.value = 0; show(); }
    timer = setInterval(step, 600);
    play.textContent = "Stop";
  });
  figure.querySelector(".tl-control").hidden = false;
  show();
}

// 2. A quiz: choosing an answer shows the reply to it. The arrow keys only choose, so that nobody is told before they
//    have read all answers; Enter and the space bar answer.
function startQuiz(quiz) {
  const said = document.createElement("div");
  said.className = "tl-said";
  said.setAttribute("role", "status"); // read aloud when it is filled
  const hint = document.createElement("p");
  hint.className = "tl-hint";
  hint.id = `${quiz.id}-hint`;
  hint.textContent = "Arrow keys choose, Enter answers.";
  quiz.setAttribute("aria-describedby", hint.id);
  quiz.append(hint, said);
  quiz.classList.add("tl-started");
  let byArrow = false;
  const answer = (input) => {
    const reply = quiz.querySelectorAll("details li")[input.value];
    said.replaceChildren(...[...reply.childNodes].map((node) => node.cloneNode(true)));
    said.dataset.answer = reply.className;
  };
  quiz.addEventListener("keydown", (event) => {
    byArrow = event.key.startsWith("Arrow");
    if ((event.key === "Enter" || event.key === " ") && event.target.checked) answer(event.target);
  });
  quiz.addEventListener("pointerdown", () => { byArrow = false; });
  quiz.addEventListener("click", (event) => {
    if (!event.target.matches("input")) return; // a click on a label arrives here a second time, from its input
    if (byArrow) said.replaceChildren();
    else answer(event.target);
  });
}

addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll(".tl-live").forEach(startFigure);
  document.querySelectorAll(".tl-quiz").forEach(startQuiz);
});
