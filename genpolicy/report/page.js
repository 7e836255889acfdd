// A click on a run, in a chart or in the table of runs, copies the command that makes it.
(() => {
  const told = document.getElementById("told");
  let timer;
  const say = (text) => {
    told.textContent = text;
    told.className = "shown";
    clearTimeout(timer);
    timer = setTimeout(() => { told.className = ""; }, 6000);
  };
  const copy = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = document.body.appendChild(document.createElement("textarea"));
      area.value = text;
      area.select();
      const done = document.execCommand("copy");
      area.remove();
      return done;
    }
    return true;
  };
  document.documentElement.classList.add("scripted");
  document.addEventListener("click", async (event) => {
    const run = event.target.closest(".run, tr[data-command]");
    if (!run || event.target.closest("details")) return;
    const number = run.dataset.row ?? run.dataset.run;
    const row = document.querySelector(`tr[data-row="${number}"]`);
    const title = run.querySelector("title");
    const said = title ? title.textContent + ": " : "";
    if (!row) say(said + "no command is known that makes this run");
    else say((await copy(row.dataset.command) ? "Copied: " : "") + row.dataset.command);
  });
})();
