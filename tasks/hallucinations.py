"""Text that Whisper makes up: what it says where nobody speaks, and loops."""

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence

from tasks.captions import PAUSE_MS, ends_sentence
from tasks.ladder import ECHO_BYTES, MAX_BYTES_PER_S, bytes_per_s, size_of
from tasks.transcript import Segment, Word

# What Whisper learned from the ends of videos and from those who made their subtitles.
_SAID = """
thank you | thank you very much | thank you so much | thanks | thanks for watching
thank you for watching
thank you so much for watching | thank you very much for watching | thanks for listening
thank you for listening
please subscribe | please subscribe to my channel | subscribe | like and subscribe
dont forget to subscribe
see you next time | see you in the next video | ill see you next time | bye | bye bye | goodbye
you | the end | okay
oh | so | hmm | mm | uh | ah | music | applause | silence | laughter | blank audio | music playing
birds chirping
תודה | תודה רבה | תודה רבה לכם | תודה שצפיתם | תודה שצפיתם בסרטון | תודה על הצפייה
תודה רבה על הצפייה | תודה לצופים
תודה שהאזנתם | להתראות | ביי | ביי ביי | אל תשכחו להירשם לערוץ | מוזיקה | מחיאות כפיים
شكرا | شكرا لكم | شكرا جزيلا | شكرا للمشاهدة | شكرا على المشاهدة | شكرا لكم على المشاهدة
اشتركوا في القناة | موسيقى
vielen dank | vielen dank fürs zuschauen | danke | danke schön | danke fürs zuschauen | tschüss
bis zum nächsten mal | musik
merci | merci beaucoup | merci davoir regardé | merci davoir regardé cette vidéo | abonnez vous
au revoir | musique
gracias | muchas gracias | gracias por ver | gracias por ver el video | gracias por ver el vídeo
suscríbete | adiós | música
obrigado | obrigada | muito obrigado | obrigado por assistir | tchau | inscreva se no canal
grazie | grazie a tutti | grazie per la visione | grazie per aver guardato il video | ciao | musica
спасибо | большое спасибо | спасибо за внимание | спасибо за просмотр | продолжение следует
подписывайтесь на канал
до свидания | до новых встреч | музыка | дякую | дякую за перегляд | дякую за увагу
bedankt | bedankt voor het kijken | dank je wel | tot de volgende keer | tack
tack för att ni tittade | tak | takk | kiitos
dziękuję | dziękuję za uwagę | dziękuję za oglądanie | děkuji | děkuji za pozornost | köszönöm
köszönöm a figyelmet
teşekkürler | teşekkür ederim | izlediğiniz için teşekkürler | izlediğiniz için teşekkür ederim
谢谢 | 谢谢大家 | 谢谢观看 | 感谢观看 | 謝謝 | 謝謝大家 | 謝謝觀看 | 請訂閱
ご視聴ありがとうございました | ありがとうございました | ありがとうございます | おやすみなさい
감사합니다 | 시청해주셔서 감사합니다 | 시청해 주셔서 감사합니다 | 구독과 좋아요 부탁드립니다
धन्यवाद | cảm ơn các bạn đã theo dõi | hãy subscribe cho kênh ghiền mì gõ | terima kasih | mulțumesc
ευχαριστώ
"""
# Credits name people and firms, so only their beginnings and ends are known.
_CREDITS = re.compile(
    r"amara org|^(subtitle[sd]?|caption(s|ed|ing)?|transcribed|transcript|transcription|translated) by\b"
    r"|^untertitel(ung)?( \w+)? (von|der|des|im auftrag|mit)\b|^sous titr(es|age)\b"
    r"|^subtítulos (realizados|por|de)\b|^legendas?( \w+)? (por|pela|de)\b"
    r"|^sottotitoli( \w+)*? (a cura|creati|di)\b|^ondertiteld? (door|en)\b|^napisy\b.*\bprzez\b|^altyazı\b"
    r"|^субтитры\b|^редактор субтитров\b|^ترجمة نانسي"
    r"|^(כתוביות|תרגום|תורגם)( \w+)? (על ידי|עי|של)\b"
    r"|字幕.*(提供|by|由|制作)|請不吝點贊|请不吝点赞"
)
# A loop is a phrase of up to so many words, so many times or more in a row.
LONGEST_PHRASE = 12
FEWEST_ROUNDS = 4


def plain(text: str) -> str:
    """Letters and digits in lower case, a space between words; apostrophes and vowel points are left out."""
    composed = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    kept = (
        character
        if character.isalnum() or unicodedata.category(character) == "Mc"
        else ""
        if unicodedata.category(character) == "Mn" or character in "'’`´\"״׳"
        else " "
        for character in composed
    )
    return " ".join("".join(kept).split())


PHRASES = frozenset(plain(phrase) for phrase in _SAID.replace("\n", "|").split("|")) - {""}


def is_filler(text: str) -> bool:
    """Whether the whole text is something that Whisper says over silence."""
    said = plain(text)
    return not said or said in PHRASES or _CREDITS.search(said) is not None


def unlooped(words: Sequence[Word]) -> list[Word]:
    """The words with each loop said once, and the last round of one that was cut off left out."""
    said = [plain(word.text) for word in words]
    kept: list[Word] = []
    at = 0
    while at < len(words):
        length, end = _loop(said, at)
        kept += words[at : at + length]
        at = end
    return kept


def _loop(said: Sequence[str], at: int) -> tuple[int, int]:
    """Length of the phrase that is looped from a word on, and the end of the loop; else that of the word."""
    for length in range(1, LONGEST_PHRASE + 1):
        end = at + length
        while end < len(said) and said[end] == said[end - length]:
            end += 1
        rounds, rest = divmod(end - at, length)
        if rounds >= FEWEST_ROUNDS:
            return length, end if end == len(said) else end - rest
    return 1, at + 1


def unechoed(words: Sequence[Word]) -> list[Word]:
    """The words, in time, without the second of two equal phrases in a row that nobody had time to say.

    A decoder that is not sure of the end may say the last sentence again; alignment finds no sound for it.
    """
    said = [plain(word.text) for word in words]
    kept: list[Word] = []
    at = 0
    while at < len(words):
        length = next((length for length in _echoes(said, at) if _hurried(words[at : at + 2 * length])), 0)
        kept += words[at : at + max(1, length)]
        at += max(1, 2 * length)
    return kept


def _echoes(said: Sequence[str], at: int) -> Iterator[int]:
    """Lengths of the phrases from a word on that are said twice in a row."""
    for length in range(1, (len(said) - at) // 2 + 1):
        if said[at : at + length] == said[at + length : at + 2 * length]:
            yield length


def _hurried(twice: Sequence[Word]) -> bool:
    """Whether the second half, a sentence, was said faster than anybody speaks."""
    echo = twice[len(twice) // 2 :]
    text = "".join(word.text for word in echo)
    spoken_ms = echo[-1].end_ms - echo[0].start_ms
    return size_of(text) >= ECHO_BYTES and bytes_per_s(text, spoken_ms) > MAX_BYTES_PER_S


def _goes_on(before: Segment, segment: Segment) -> bool:
    """Whether a sentence goes on in the next segment, without a pause."""
    return not ends_sentence(before.text) and segment.start_ms - before.end_ms < PAUSE_MS


def sifted(segments: Sequence[Segment], is_weak: Callable[[Segment], bool]) -> list[Segment]:
    """The segments without fillers and repetitions over what hardly is speech.

    Where somebody is clearly heard, everything stays: people do thank each other, and repeat themselves. So
    does the rest of a sentence that was too long for one segment, such as "for | you.", which fades away.
    """
    kept: list[Segment] = []
    before = ""
    for segment in segments:
        said = plain(segment.text)
        rest = bool(kept) and _goes_on(kept[-1], segment)
        if rest or not ((is_filler(segment.text) or said == before) and is_weak(segment)):
            kept.append(segment)
        before = said
    return kept
